"""The reference bank: many kinds of small encoders, clean and poisoned, and what checks measure.

    python -m benchmarks.bank make --jobs 2       # trains them into the cache; goes on where it was
    python -m benchmarks.bank measure --jobs 2    # rows in benchmarks/bank/measured.json
    python -m benchmarks.bank fit                 # encodercheck/bank.json, which ships
    python -m benchmarks.bank exam                # scans real weights and poisoned copies
    python -m benchmarks.bank report              # docs/bank.md, from the rows alone

Needs the extra ``bank``. The encoders take about 45 seconds of one core each, with their copy, and
measuring both another 25 on average; what is there is kept.

One file a part: where the images come from (``sources``), the architectures (``families``), the
pre-training (``trainings``), which encoder is made how (``members``), real weights
(``pretrained``), making them (``making``) and
measuring them (``measuring``).
"""
