"""The page's address says all that is on screen, and none is too strange."""

import json
import random
import shutil
import subprocess
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl, urlencode

import pytest

NODE = shutil.which("node")
SCRIPT = Path(__file__).with_name("page") / "address.mjs"
pytestmark = pytest.mark.skipif(NODE is None, reason="there is no node: apt-get install nodejs")
WHOLE = {
    "view": "probes", "prompt": "⏎<5+7=", "corrupt": "a=b&c", "shown": "roles", "rule": "zeroed",
    "filter": "carry", "probe": "carry@blocks.0.attn.hook_z.1@-2", "step": "2500", "place": "1",
    "pins": "3,4", "a.run": "my run", "a.seed": "3", "a.layer": "1", "a.head": "2",
    "a.cuts": "0.0.4.1,1.2.3.3", "a.off": "head.0.1,neuron.1.12,mlp.0.0",
    "a.patches": "blocks.0.attn.hook_z.0@4,blocks.1.hook_resid_pre@0", "b.run": "x",
}  # fmt: skip


def shown(addresses: list[str]) -> list[dict[str, Any]]:
    """What the page makes of addresses: the address of that, and what it says."""
    done = subprocess.run(
        [str(NODE), str(SCRIPT)], input=json.dumps(addresses), capture_output=True, text=True,
        check=True,
    )  # fmt: skip
    return json.loads(done.stdout)


def test_an_address_says_all_that_is_on_screen() -> None:
    parts = [WHOLE, *({"prompt": "5", "a.run": "", "b.run": "", k: v} for k, v in WHOLE.items())]
    for given, found in zip(parts, shown([f"#{urlencode(one)}" for one in parts]), strict=True):
        assert found["problems"] == []
        assert dict(parse_qsl(found["address"][1:], keep_blank_values=True)) == given


def test_no_address_is_too_strange() -> None:
    generator = random.Random(0)
    letters = "ab.=&%#@,-0129é\x00 view"
    strange = [
        "#" + "".join(generator.choices(letters, k=generator.randrange(60))) for _ in range(500)
    ]
    assert len(shown(strange)) == 500


@pytest.mark.parametrize(
    ("address", "said"),
    [
        ("#view=maps", "view “maps” is unknown: choose story"),
        ("#a.cuts=0.0.1.4", "a query sees no key after it"),
        ("#b.seed=-1", "“-1” is no number from 0"),
        ("#c.seed=1", "the address has no pane c"),
        ("#a.colour=red", "the address has a.colour, which the page does not know"),
        ("#probe=carry", "“carry” is no probe"),
        ("#probe=carry@x@1", "“carry@x@1” is no probe"),
    ],
)
def test_what_means_nothing_in_an_address_is_said_and_left_out(address: str, said: str) -> None:
    empty, found = shown(["", address])
    assert said in found["problems"][0] and len(found["problems"]) == 1
    assert found["address"] == empty["address"]
