from __future__ import annotations

import relume.checkpoint


def test_every_public_name_has_a_docstring() -> None:
    for name in relume.checkpoint.__all__:
        assert getattr(relume.checkpoint, name).__doc__
