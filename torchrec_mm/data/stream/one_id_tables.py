"""Tables that look up single ids, which ranks may exchange otherwise than pooled bags."""

from torchrec.modules.embedding_modules import EmbeddingBagCollection


class OneIdTables(EmbeddingBagCollection):
    """Takes what ``bags.one_id_bags`` makes: of each key bags of one id, after them empty ones.

    So the n-th embedding of a key is that of its n-th id, and all behind the last id are zero. Each
    table has one feature.
    """
