"""Makes a picture of every page of a PDF: a fan-out, of which one page is in memory at a time."""

from __future__ import annotations

import importlib
import importlib.util
import math
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any

from annotated_types import Ge, Gt, Le
from PIL import Image

from pipeline import Part, Skip, Unreadable
from pipeline.images import refuse_if_too_large

# Bumped when the same options give other pixels, so that the outputs are redone.
RECIPE = 1

# PDF's unit is a point (ISO 32000, 8.3.2.3).
_POINTS_PER_INCH = 72
_MISSING = "pages needs pypdfium2: pip install 'filemill[pdf]'"


class Pages:
    """Makes a picture of every page of a PDF.

    A page is on white, and as a viewer shows it: turned, and with what is filled into its forms. `dpi` is how many
    pixels are made of an inch. `first` and `last` are the numbers of the first and the last page to make, counted from
    1; without them, all are made. A PDF that has none of these pages is left out.

    The pages' pictures are named by their numbers, as `{part}` in the output's path: 0001, 0002 and so on.
    """

    def __init__(
        self,
        *,
        dpi: Annotated[float, Gt(0), Le(2400)] = 150.0,
        first: Annotated[int, Ge(1)] = 1,
        last: Annotated[int, Ge(1)] | None = None,
    ) -> None:
        try:
            # Here, so that it is loaded by the workers alone.
            self._library: Any = importlib.import_module("pypdfium2")
        except ImportError as error:
            raise ImportError(_MISSING) from error
        self._scale, self._first, self._last = dpi / _POINTS_PER_INCH, first, last

    @staticmethod
    def check(*, first: int, last: int | None, **others: object) -> None:
        """Check the options when the pipeline is loaded. Raises ValueError without pypdfium2, or for an empty range."""
        if importlib.util.find_spec("pypdfium2") is None:
            raise ValueError(_MISSING)
        if last is not None and last < first:
            raise ValueError(f"the last page, {last}, stands before the first, {first}")

    def __call__(self, path: Path) -> Iterator[Part[Image.Image]]:
        with open(path, "rb") as file:
            document = self._open(file)
            try:
                document.init_forms()
                count = len(document)
                if count < self._first:
                    raise Skip(f"no page {self._first}: it has {count}")
                for number in range(self._first, min(count, self._last or count) + 1):
                    yield Part(self._render(document, number), name=f"{number:04}")
            finally:
                document.close()

    def _open(self, file: Any) -> Any:
        """Open a PDF that is read as it is needed. Raises `Unreadable`."""
        if not file.read(1):
            raise Unreadable("empty file")
        try:
            return self._library.PdfDocument(file)
        except self._library.PdfiumError as error:
            if error.err_code == self._library.raw.FPDF_ERR_PASSWORD:
                raise Unreadable("encrypted PDF: it cannot be read without its password") from None
            raise Unreadable("not a PDF, or a damaged one") from None

    def _render(self, document: Any, number: int) -> Image.Image:
        try:
            page = document[number - 1]
            width, height = (math.ceil(side * self._scale) for side in page.get_size())
            refuse_if_too_large((width, height))
            bitmap = page.render(scale=self._scale, rev_byteorder=True)
        except self._library.PdfiumError:
            raise Unreadable(f"damaged PDF: page {number} of {len(document)} cannot be read") from None
        image: Image.Image = bitmap.to_pil().copy()  # which may only show the bitmap's own memory
        bitmap.close()
        page.close()
        return image
