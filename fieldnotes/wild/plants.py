"""Plants between the camera and an animal: they hide as much of it as the scene says."""

from __future__ import annotations

from random import Random

from PIL import Image, ImageChops, ImageDraw, ImageFilter

from fieldscope.fieldnotes.props import Box, Colour, mix, smooth

LEAVES: dict[str, Colour] = {
    "forest": (64, 84, 48),
    "beach": (150, 140, 92),
    "desert": (138, 126, 84),
    "snow": (112, 104, 100),
    "meadow": (110, 140, 70),
    "pond": (84, 112, 78),
    "reef": (76, 96, 84),
    "street": (104, 116, 92),
}
"""The colour of the plants in front of each habitat: dull, as the habitats are."""

_MOST_BLADES = 60


def hide(canvas: Image.Image, body: Image.Image, box: Box, habitat: str, percent: int, rng: Random) -> int:
    """Draw blades over the animal at `box` until they hide `percent` of its `body` (a mask of the box's size); the
    share that is hidden, in percent."""
    left, top, right, bottom = box
    width, height = right - left, bottom - top
    inside = body.getbbox() or (0, 0, width, height)
    visible = body.point([255 * (level >= 128) for level in range(256)])
    whole = visible.histogram()[255] or 1
    overlay = Image.new("RGBA", (width * 2, height * 2))  # the animal's box is in its middle
    draw, hidden = ImageDraw.Draw(overlay), 0
    for _ in range(_MOST_BLADES):
        if hidden * 100 >= percent * whole:
            break
        x = width // 2 + rng.randint(inside[0], inside[2])
        tip = height // 2 + rng.randint(inside[1] - height // 10, inside[1] + (inside[3] - inside[1]) // 2)
        thick = max(2, width * rng.randint(4, 7) // 100)
        paint = mix(LEAVES[habitat], (30, 34, 26), rng.randint(0, 45))
        _blade(draw, x, tip, height // 2 + inside[3] + height // 8, thick, rng.randint(-width, width) // 5, paint)
        covered = overlay.getchannel("A").crop((width // 2, height // 2, width // 2 + width, height // 2 + height))
        hidden = ImageChops.darker(covered, visible).histogram()[255]
    overlay = overlay.filter(ImageFilter.BoxBlur(max(1, width // 160)))  # nearer than the focus
    canvas.paste(overlay, (left - width // 2, top - height // 2), overlay)
    return hidden * 100 // whole


def _blade(draw: ImageDraw.ImageDraw, x: int, tip: int, foot: int, thick: int, lean: int, paint: Colour) -> None:
    """A blade that is broad at its foot and bends to its tip."""
    bend = tip + (foot - tip) // 3
    spine = smooth([(x, foot), (x, bend), (x + lean, tip)], closed=False)
    last = len(spine) - 1
    near = [(px - thick * (last - at) // (2 * last), py) for at, (px, py) in enumerate(spine)]
    far = [(px + thick * (last - at) // (2 * last), py) for at, (px, py) in enumerate(spine)]
    draw.polygon([*near, *reversed(far)], (*paint, 255))
    draw.line(spine, (*mix(paint, (255, 255, 255), 18), 255), max(1, thick // 6))
