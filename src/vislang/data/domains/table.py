"""The 18 described domains, in alphabetical order: operations, parameters and sentences."""

from __future__ import annotations

from vislang.data.domains.domain import Domain

_HERE = "vislang.data.domains"
# Order of tables and plots: from what changes the object's surroundings to what turns the picture.
PRESENTATION = (
    "make_background_white", "make_background_black", "make_background_blue", "sketchify",
    "posterize", "low_res", "blur", "foggy", "grayscale", "sepia", "dim", "brighten", "closeup",
    "fisheye", "upside_down", "sideways", "tilt",
)  # fmt: skip


def _background(name: str, colour: tuple[int, int, int], *more: str) -> Domain:
    return Domain(
        f"make_background_{name}",
        f"{_HERE}.background:paint_background",
        (*more, f"a photo of a {{}} with a {name} background"),
        {"colour": colour, "axes": "corrected"},
        says=f"What GrabCut takes for the background becomes {name}.",
    )


_ALL = (
    Domain("blur", f"{_HERE}.detail:blur",
           ("a blurry photo of a {}", "a foggy photo of a {}"), {"size": 15},
           says="Gaussian blur of 15 x 15 pixels (sigma 2.6)."),
    Domain("brighten", f"{_HERE}.colour:scale",
           ("a bright photo of a {}", "an overexposed photo of a {}"), {"factor": 1.8},
           says="All values times 1.8, at most 255."),
    Domain("closeup", f"{_HERE}.geometry:closeup", ("a closeup photo of a {}",), {"factor": 2},
           says="The middle half of both sides."),
    Domain("dim", f"{_HERE}.colour:scale",
           ("a dim photo of a {}", "an underexposed photo of a {}"), {"factor": 0.2},
           says="All values times 0.2."),
    Domain("fisheye", f"{_HERE}.geometry:fisheye",
           ("a fisheye photo of a {}", "a barrel distorted photo of a {}"),
           {"strength": 3.2, "factor": 1.4},
           says="Barrel distortion, then a crop by 1.4."),
    Domain("foggy", f"{_HERE}.fog:foggy",
           ("a blurry photo of a {}", "a foggy photo of a {}"),
           {"density": 0.9, "alpha": 0.08}, random=True,
           says="Faint white discs at random places, then a box blur."),
    Domain("grayscale", f"{_HERE}.colour:grayscale",
           ("a black and white photo of a {}", "a vintage photo of a {}"),
           says="Luma in all three channels."),
    Domain("low_res", f"{_HERE}.detail:low_res",
           ("a low resolution image of a {}", "a low quality image of a {}",
            "a pixelated image of a {}"), {"factor": 0.25},
           says="Every fourth pixel, enlarged again without smoothing."),
    _background("black", (0, 0, 0)),
    _background("blue", (0, 0, 255)),
    _background("white", (255, 255, 255), "a clipart image of a {}"),
    Domain("noop", f"{_HERE}.colour:noop", ("a photo of a {}",), says="The picture as it is."),
    Domain("posterize", f"{_HERE}.colour:posterize",
           ("a poster of a {}", "a cartoon of a {}"), {"bits": 2},
           says="The two highest bits of every value."),
    Domain("sepia", f"{_HERE}.colour:sepia",
           ("a sepia tone photo of a {}", "a vintage photo of a {}"),
           says="The brown tones of old photographs."),
    Domain("sideways", f"{_HERE}.geometry:sideways", ("a sideways photo of a {}",), random=True,
           says="A quarter turn to the left or to the right."),
    Domain("sketchify", f"{_HERE}.detail:sketchify",
           ("a drawing of a {}", "a sketch of a {}"),
           says="Dark edges (Laplacian) on white."),
    Domain("tilt", f"{_HERE}.geometry:tilt", ("a tilted photo of a {}",),
           {"least": 10, "most": 20}, random=True,
           says="Turned by 10 to 20 degrees either way, corners black."),
    Domain("upside_down", f"{_HERE}.geometry:upside_down", ("an upside-down photo of a {}",),
           says="Half a turn (180 degrees)."),
)  # fmt: skip

DOMAINS: dict[str, Domain] = {domain.name: domain for domain in _ALL}
