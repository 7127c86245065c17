"""Work over machines: devices, process group, sharding plan, DistributedModelParallel, pipeline.

Whatever is true of one device is written elsewhere for one device; here it is spread over ranks.
Knows no model: it takes any module that returns ``(loss, outputs)``, as TorchRec's pipelines do. A
sharding, kernel or device that is new starts in ``tables.py`` (what a config may say) and
``planning.py``; what changes numbers on two ranks fails ``tests/parallel``.

Read first: sharding.py
"""
