# How connections live, on either side: ages and silences, in whole seconds because they are looked at once a second.

from __future__ import annotations

import msgspec


class Lives(msgspec.Struct, frozen=True):
    """When a connection is asked whether it lives, and when it has lived long enough.

    One older than `age_s` (None: never), give or take a tenth, is drained and cut off `grace_s` later. One that is
    silent for `keepalive_s` is asked, and dropped where it does not answer for `keepalive_timeout_s`.
    """

    age_s: float | None = 300
    grace_s: float = 75
    keepalive_s: float = 20
    keepalive_timeout_s: float = 5
