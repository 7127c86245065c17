"""Triton's kernels compiled, by the tests that interpret them elsewhere."""

import pytest

from tests.kernels.triton.test_bank_softmax import *  # noqa: F403
from tests.kernels.triton.test_gathered_attention import *  # noqa: F403
from tests.kernels.triton.test_general_search import *  # noqa: F403

pytestmark = pytest.mark.gpu
