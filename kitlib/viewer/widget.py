"""The viewer as a widget of JupyterLab, and as a picture where no front end listens."""

from __future__ import annotations

import base64
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import anywidget
import traitlets

from kitlib.errors import KitError, unknown
from kitlib.post.config import PostConfig
from kitlib.post.thresholds import Predictions
from kitlib.records import Frame
from kitlib.viewer import order
from kitlib.viewer.corrected import Corrected
from kitlib.viewer.layers import gather
from kitlib.viewer.session import Session

if TYPE_CHECKING:
    from IPython.display import Image

_FRONT_END = Path(__file__).parent


class Viewer(anywidget.AnyWidget):
    """Frames and their cells to browse, compare and correct; see ``show``."""

    _esm = _FRONT_END / "viewer.js"
    _css = _FRONT_END / "viewer.css"
    #: The frames in their order, the layers and their colours.
    overview = traitlets.Dict().tag(sync=True)

    def __init__(self, session: Session) -> None:
        super().__init__(overview=session.overview())
        self._session = session
        self.on_msg(self._answer)

    def _answer(self, _: Viewer, request: Mapping[str, Any], __: Sequence[memoryview]) -> None:
        ticket = {"ticket": request["ticket"]}
        try:
            reply, blocks = self._session.answer(request)
        except KitError as error:
            self.send({"kind": "error", "said": str(error), **ticket})
        except Exception as error:
            said = f"the kernel failed: {type(error).__name__}: {error}"
            self.send({"kind": "error", "said": said, **ticket})
            raise
        else:
            self.send({**reply, **ticket}, blocks)

    def _repr_mimebundle_(self, **kwargs: Any) -> Any:
        """The widget, and beside it a picture for readers of the saved notebook."""
        bundle = super()._repr_mimebundle_(**kwargs)
        data, metadata = bundle if bundle else ({}, {})
        png = base64.b64encode(self._session.fallback()).decode()
        return {**data, "image/png": png, "text/plain": _sentence(self._session)}, metadata


def show(
    frames: Sequence[Frame],
    layers: Mapping[str, Predictions] | None = None,
    post: PostConfig | None = None,
    sort: str = order.GIVEN,
    corrections: Path | str | None = None,
) -> Viewer | Image:
    """Browse frames and their cells in JupyterLab, and correct the cells by hand.

    Layers are the annotated cells ("truth"), predictions, pseudo labels, errors (matched, wrong and missed
    cells at an IoU of 0.5) and what was removed from the predictions, with the reason. The score and the mask
    threshold can be moved, and the frame's score follows.

    Where papermill runs the notebook there is nobody to browse: the first frame is shown as a picture.

    Args:
        frames: images with their annotated cells, if they have any.
        layers: further cells of the same images: "prediction", as frames or as frames by mask threshold, and
            "pseudo labels".
        post: post-processing of the predictions, as ``post.yaml`` has it; without it, they are shown as they
            are, and the score threshold alone removes some.
        sort: the order at first: "as given", "name", "number of cells", "score", "disagreement" or
            "confidence".
        corrections: the file for corrected cells, "corrections.csv", saved at every step; corrections that it
            holds are shown. Without it nothing can be corrected.

    Raises:
        KitError: an unknown layer or order, layers of other images or sizes, or a file that cannot be taken
            for corrections.

    Example:
        >>> viewer.show(frames, {"prediction": found}, sort="score")  # doctest: +SKIP
    """
    gathered = gather(frames, layers or {}, post)
    if sort not in order.names(gathered):
        raise unknown("order", sort, order.names(gathered))
    session = Session(gathered, Corrected(gathered.frames, corrections), sort)
    if _has_front_end():
        return Viewer(session)
    from IPython.display import Image

    return Image(session.fallback(), alt=_sentence(session))


def _sentence(session: Session) -> str:
    return f"viewer of {len(session.places)} frames; run the cell in JupyterLab to browse them"


def _has_front_end() -> bool:
    """Whether a person may answer: the client of this kernel allows input, as JupyterLab does and papermill
    does not."""
    from IPython import get_ipython

    kernel = getattr(get_ipython(), "kernel", None)
    return bool(kernel and kernel.get_parent().get("content", {}).get("allow_stdin"))
