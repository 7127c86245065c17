"""The benchmark that counts what a table's row costs."""

import json

from apps.benchmark import main


def test_a_row_costs_its_weights_and_one_number_of_optimizer_state(capsys):
    main(["memory", "--json", "--rows", "20000", "--embedding_dim", "8", "--runs", "1"])
    (line,) = capsys.readouterr().out.splitlines()
    result = json.loads(line)
    assert result["benchmark"] == "memory"
    assert result["ours"] == 4 * (8 + 1) <= result["promised"]
    assert result["baseline"] == 3 * 4 * 8  # weights and Adam's two moments
    assert result["ratio"] == result["baseline"] / result["ours"]
