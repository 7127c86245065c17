"""Tokens made without the weights are those the model makes itself."""

import pickle

import pytest
import torch

from torchrec_mm.pretraining.encoder.backbone_weights import load_text_backbone
from torchrec_mm.pretraining.encoder.tokeniser import Tokeniser

TEXTS = ["word1 word2", "", "word4 word5 unheard " * 20]


@pytest.fixture
def backbone(text_encoder):
    return load_text_backbone(str(text_encoder))


def test_tokens_are_those_of_the_model_cut_to_its_longest_text(backbone):
    own = backbone.model.preprocess(TEXTS)
    tokens = backbone.tokenise(TEXTS)
    assert tokens.keys() == own.keys() - {"modality"}
    assert all(torch.equal(tokens[name], own[name]) for name in tokens)
    assert tokens["input_ids"].shape == (3, 16)


def test_it_travels_to_another_process_without_the_weights(backbone):
    sent = pickle.dumps(backbone.tokenise)
    weights = sum(p.numel() * p.element_size() for p in backbone.parameters())
    assert len(sent) < weights
    tokens = pickle.loads(sent)(TEXTS)
    assert all(torch.equal(tokens[n], value) for n, value in backbone.tokenise(TEXTS).items())


def test_the_default_prompt_comes_first_and_is_left_out_of_the_mean_if_the_model_says_so(backbone):
    prompted = backbone.model
    prompted.prompts, prompted.default_prompt_name = {"search": "word9 "}, "search"
    prompted[1].include_prompt = False
    tokens = Tokeniser(prompted)(["word1", "word2"])
    expected = backbone.tokenise(["word9 word1", "word9 word2"])
    assert torch.equal(tokens["input_ids"], expected["input_ids"])
    words = ["word1", "word2"]
    expected = prompted.encode(words, convert_to_tensor=True, normalize_embeddings=True)
    torch.testing.assert_close(backbone(tokens).detach(), expected.clone())


def test_its_description_changes_with_vocabulary_length_and_prompt_not_with_use(backbone):
    before = backbone.tokenise.description()
    backbone.tokenise(TEXTS)
    assert Tokeniser(backbone.model).description() == before
    backbone.model.max_seq_length = 12
    shorter = Tokeniser(backbone.model).description()
    backbone.model.tokenizer.add_tokens(["word99"])
    larger = Tokeniser(backbone.model).description()
    backbone.model.prompts, backbone.model.default_prompt_name = {"a": "mot1 "}, "a"
    prompted = Tokeniser(backbone.model).description()
    assert len({before, shorter, larger, prompted}) == 4
