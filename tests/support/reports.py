"""Reports of runs as the report's page gets them: of an ordinary night, of nothing, of very much, and hostile ones."""

from __future__ import annotations

import base64
import io
import math
from collections.abc import Iterator
from typing import Any

from PIL import Image

Report = dict[str, Any]

_STARTED = 1_795_919_400.25
_COUNTS = (
    "sources",
    "done",
    "up_to_date",
    "skipped",
    "failed",
    "new_failed",
    "recovered",
    "held",
    "dismissed",
    "edited",
    "settling",
    "vanished",
    "unmatched",
    "renamed",
    "pruned",
    "set_aside",
)


def empty() -> Report:
    """A run that was refused after it had opened: nothing but its head."""
    return {
        "format": 1,
        "pipeline": "photos",
        "run": "20261130T023000-4f2a",
        "number": 1,
        "yaml": "/srv/photos/pipeline.yaml",
        "state": "/srv/photos/.pipeline/photos",
        "log": "/srv/photos/.pipeline/photos/logs/20261130T023000-4f2a.log",
        "host": "nas",
        "versions": {"filemill": "0.1.0", "python": "3.13.1"},
        "options": [],
        "started": _STARTED,
        "ended": _STARTED + 0.4,
        "seconds": 0.4,
        "exit": 3,
        "stopped": "",
        "notes": [],
        "verdict": {"level": "bad", "text": "The environment stopped the run; the same line again resumes", "next": []},
        "counts": dict.fromkeys(_COUNTS, 0),
        "bytes": {"in": 0, "out": 0, "saved": 0},
        "new": {"failures": [], "recovered": []},
        "timeline": {"start": _STARTED, "step_s": 1.0, "files": [], "failed": []},
        "workers": [],
        "pools": [],
        "processes": 0,
        "stages": [],
        "sizes": [],
        "failures": [],
        "slowest": [],
        "biggest": [],
        "gallery": [],
        "diffs": [],
        "plan": [],
        "runs": [],
    }


def failure(source: str = "2019/rome/IMG_0412.jpg", **given: Any) -> Report:
    """A failure as a report has it."""
    return {
        "source": source,
        "stage": "web",
        "kind": "error",
        "text": "cannot identify image: the file is cut off",
        "place": "stages/resize.py:41",
        "seat": 2,
        "is_new": True,
        "output": "opened 12,345 of 40,000 bytes\n",
        "detail": 'Traceback (most recent call last):\n  File "stages/resize.py", line 41, in resize\n'
        "    picture.load()\nOSError: image file is truncated (17 bytes not processed)",
    } | given


def everyday() -> Report:
    """A night with failures, pictures and texts, whose every number is another."""
    steps = 48
    failures = [failure(f"2019/rome/IMG_{n:04}.jpg", seat=n % 4, is_new=n < 3) for n in range(5)]
    return empty() | {
        "number": 212,
        "exit": 1,
        "seconds": 478.61,
        "ended": _STARTED + 478.61,
        "processes": 4,
        "options": ["stages.web.with.width=1600"],
        "notes": ["12 files were done with a note: the colour profile was damaged and is left out"],
        "verdict": {
            "level": "fair",
            "text": "Finished; 7 files failed, 3 of them for the first time, and all others are done",
            "next": [
                "filemill failures /srv/photos/pipeline.yaml",
                "filemill /srv/photos/pipeline.yaml --retry-failed",
            ],
        },
        "counts": dict(zip(_COUNTS, (18_431, 10_245, 26_602, 13, 7, 3, 2, 5, 1, 4, 6, 8, 9, 10, 11, 14), strict=True)),
        "bytes": {"in": 48_123_456_789, "out": 9_876_543_210, "saved": 38_246_913_579},
        "new": {
            "failures": failures[:3],
            "recovered": [
                {"source": "2018/oslo/a.jpg", "stage": "web"},
                {"source": "2018/oslo/b.jpg", "stage": "thumb"},
            ],
        },
        "timeline": {
            "start": _STARTED,
            "step_s": 10.0,
            "failed": [3 if n == 17 else 4 if n == 31 else 0 for n in range(steps)],
            "files": [round(210 + 90 * math.sin(n / 4) + n % 7) for n in range(steps)],
        },
        "workers": [
            {
                "seat": n,
                "pool": "",
                "busy_s": 441.2 - 19.7 * n,
                "files": 2_570 + n,
                "restarts": n % 2,
                "peak_bytes": 312_000_000 + 41_234_567 * n,
            }
            for n in range(4)
        ],
        "stages": [stage("web", 10_231, 0.081), stage("thumb", 10_119, 0.0093), stage("caption", 312, 1.72)],
        "sizes": [
            {
                "from_bytes": 1 << n,
                "to_bytes": 2 << n,
                "files": 17 + 41 * n,
                "mean_s": 0.004 * 1.6 ** (n - 14),
                "slowest_s": 0.03 * 1.5 ** (n - 14),
            }
            for n in range(14, 25)
        ],
        "failures": [
            {
                "stage": "web",
                "kind": "error",
                "reason": "cannot identify image",
                "files": 5,
                "is_new": True,
                "examples": failures,
            },
            {
                "stage": "caption",
                "kind": "timeout",
                "reason": "took longer than 60 s",
                "files": 2,
                "is_new": False,
                "examples": [
                    failure(
                        "2021/scans/album page 4.tif",
                        stage="caption",
                        kind="timeout",
                        text="took longer than 60 s",
                        place="",
                        detail="",
                        output="",
                        is_new=False,
                        seat=None,
                    ),
                ],
            },
        ],
        "slowest": [file_row(n, 58.2 / (1 + n / 5), 9_100_000 + 1_234_567 * n) for n in range(20)],
        "biggest": [file_row(n + 50, 8.9 + n % 3, 398_000_000 - 15_765_432 * n) for n in range(20)],
        "gallery": [pair(n) for n in range(6)],
        "diffs": [
            {
                "source": "notes/todo.txt",
                "stage": "tidy",
                "output": "out/notes/todo.txt",
                "is_cut": True,
                "lines": [
                    [" ", "@@ -1,4 +1,4 @@"],
                    [" ", "Things to do"],
                    ["-", "*  buy  film   "],
                    ["+", "* buy film"],
                    [" ", "* call Ada"],
                ],
            },
        ],
        "plan": [
            {"action": "make", "reason": "new", "outputs": 10_100},
            {"action": "make", "reason": "options of stage 'web' changed: width", "outputs": 154},
            {"action": "up to date", "reason": "", "outputs": 26_602},
            {"action": "held", "reason": "failed in 3 runs", "outputs": 4},
        ],
        "runs": [
            {
                "run": f"r{n}",
                "number": 183 + n,
                "started": _STARTED - 86_400 * (29 - n),
                "seconds": 300.5 + 37 * (n % 6),
                "exit": int(n % 9 == 2),
                "done": 9_000 + 211 * (n % 5),
                "failed": 4 if n % 9 == 2 else 0,
                "bytes_out": 7_000_000_000 + 512_345_678 * (n % 7),
            }
            for n in range(29)
        ]
        + [
            {
                "run": "r29",
                "number": 212,
                "started": _STARTED,
                "seconds": 478.61,
                "exit": 1,
                "done": 10_245,
                "failed": 7,
                "bytes_out": 9_876_543_210,
            }
        ],
    }


def stage(name: str, calls: int, median_s: float) -> Report:
    """The times of a stage, spread as such times are."""
    middle = round(math.log2(median_s) * 4)
    counts = [
        [2 ** (n / 4), round(calls / 6 * math.exp(-(((n - middle) / 5) ** 2)))] for n in range(middle - 9, middle + 15)
    ]
    return {
        "name": name,
        "calls": calls,
        "total_s": calls * median_s * 1.21,
        "median_s": median_s,
        "p95_s": median_s * 2.7,
        "slowest_s": median_s * 11.3,
        "histogram": [each for each in counts if each[1]],
    }


def file_row(number: int, seconds: float, size_bytes: int) -> Report:
    """A row of the slowest or biggest files."""
    return {
        "source": f"2020/panoramas of the coast/DSC_{number:05}_stitched.tif",
        "stages": ["web", "thumb"],
        "seconds": seconds,
        "bytes_in": size_bytes,
        "bytes_out": size_bytes // 9,
        "peak_bytes": None if number % 7 == 3 else size_bytes * 6,
        "seat": number % 4,
    }


def pair(number: int) -> Report:
    """A picture before and after."""
    tall = number % 3 == 1
    return {
        "source": f"2020/coast/DSC_{number:05}.jpg",
        "stage": "web",
        "output": f"web/2020/coast/DSC_{number:05}.webp",
        "before": picture(number, 240, tall) | {"width": 6_000, "height": 4_000, "bytes": 11_234_567 + number},
        "after": picture(number, 240, tall) | {"width": 1_600, "height": 1_067, "bytes": 312_345 + number},
    }


def picture(number: int, side: int, tall: bool = False) -> Report:
    """A thumbnail as a data URI."""
    gradient = Image.linear_gradient("L").resize((side * 2 // 3, side) if tall else (side, side * 2 // 3))
    colours = Image.merge("RGB", (gradient, gradient.rotate(180), Image.new("L", gradient.size, 40 * number % 256)))
    file = io.BytesIO()
    colours.save(file, "JPEG")
    return {"data": "data:image/jpeg;base64," + base64.b64encode(file.getvalue()).decode()}


def huge() -> Report:
    """As much of everything as a report may have: 120 steps, 64 workers, 50 stages, texts of 4,000 characters."""
    report = everyday()
    long = "x = frobnicate(y)\n" * 222
    many = [failure(f"deep/{'folder/' * 30}file {n}.jpg", detail=long, output=long) for n in range(20)]
    return report | {
        "counts": dict.fromkeys(_COUNTS, 1_234_567),
        "timeline": report["timeline"]
        | {"files": [(n * 7919) % 9_973 for n in range(120)], "failed": [n % 11 for n in range(120)]},
        "workers": [
            {"seat": n, "pool": "", "busy_s": 400.0 + n, "files": 15_000 + n, "restarts": n, "peak_bytes": 10**9 + n}
            for n in range(64)
        ],
        "processes": 64,
        "stages": [stage(f"a stage with a long name {n}", 1_000_000 + n, 0.0001 * 1.3**n) for n in range(50)],
        "sizes": [
            {"from_bytes": 2**n, "to_bytes": 2 ** (n + 1), "files": 10 + n, "mean_s": 0.1 * n, "slowest_s": 1.0 * n}
            for n in range(41)
        ],
        "new": {"failures": many, "recovered": [{"source": f"r{n}", "stage": "web"} for n in range(20)]},
        "failures": [
            {
                "stage": "web",
                "kind": "error",
                "reason": f"reason {n}",
                "files": 9_000 + n,
                "is_new": n % 2 == 0,
                "examples": many[:5],
            }
            for n in range(300)
        ],
        "gallery": [pair(n) for n in range(12)],
        "plan": [{"action": "make", "reason": f"reason {n}", "outputs": 100 + n} for n in range(120)],
    }


# What has made pages run something, or fall apart, or fail to be written.
_ATTACKS = [
    "<img src=x onerror=\"window.ran='img'\">",
    "<script>window.ran='script'</script>",
    "</script><script>window.ran=1</script>",
    "</style><img src=x onerror=window.ran=1>",
    "</title><svg onload=window.ran=1>",
    "</pre></details><h1>gone</h1>",
    '" onfocus="window.ran=1" autofocus="',
    "' onmouseover='window.ran=1",
    "`onerror=window.ran=1`",
    "--><b>comment</b>",
    "<!--",
    "]]><script>window.ran=1</script>",
    "{{7*7}}",
    "{% raw %}{{ 7*7 }}",
    "{# note #}",
    "${7*7}",
    "#{7*7}",
    "&lt;b&gt; &amp;amp;",
    "&#x3C;script>window.ran=1&#x3C;/script>",
    "javascript:alert(1)",
    "data:text/html,<script>alert(1)</script>",
    "<a href=javascript:alert(1)>here</a>",
    "<iframe src=//example.org>",
    "<link rel=stylesheet href=//example.org/a.css>",
    "<base href=//example.org>",
    "<meta http-equiv=refresh content=0;url=//example.org>",
    "<form action=//example.org><input autofocus>",
    "<svg><script>alert(1)</script></svg>",
    "<math><mi xlink:href=javascript:alert(1)>",
    "<object data=//example.org>",
    "<video src=//example.org>",
    "\u202egnp.exe",
    "\u2066isolated\u2069\u2069\u2069",
    "\u200f\u200fright to left\u200f",
    "שלום/עולם.jpg",
    "ملف/صورة.png",
    "zero\u200bwidth\u200c\u200d\ufeff",
    "a" * 4_000,
    "<" * 4_000,
    "'" * 4_000,
    "漢" * 4_000,
    "line\nbreak\r\nand\ttab\vand\ffeed",
    "NUL \0 and ESC \x1b[31mred\x1b[0m and BEL \a",
    "\x85\u2028\u2029",
    "lone \udcff surrogate \ud800",
    "Z\u0351\u036b\u0343\u036a\u0302\u036b\u033d" * 60,
    "\U0001f469\u200d\U0001f467" * 50,
    "😀" * 2_000,
    "",
    " ",
    "\\u202e",
    "%s %d {0} {}",
    "C:\\pictures\\<new>.jpg",
]


def attacks() -> list[str]:
    """More than fifty hostile names and messages."""
    assert len(_ATTACKS) >= 50
    return list(_ATTACKS)


def hostile() -> Report:
    """A report in which every text is hostile."""
    texts = iter(attacks() * 1_000)
    report = with_texts(everyday(), texts)
    report["new"]["failures"] = [with_texts(failure(), texts) for _ in range(20)]
    report["failures"] = [
        {
            "stage": each,
            "kind": each,
            "reason": each,
            "files": 3,
            "is_new": True,
            "examples": [with_texts(failure(), texts)],
        }
        for each in attacks()
    ]
    report["plan"] = [{"action": each, "reason": each, "outputs": 1} for each in attacks()]
    report["notes"] = attacks()
    return report


def with_texts(value: Any, texts: Iterator[str], key: str = "") -> Any:
    """Return a copy of a report, or of a part of it, with every text replaced by the next of others."""
    if isinstance(value, str):
        return value if key in ("data", "level") else next(texts)
    if isinstance(value, dict):
        return {name: with_texts(each, texts, name) for name, each in value.items()}
    return [with_texts(each, texts, key) for each in value] if isinstance(value, list) else value
