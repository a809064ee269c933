"""From tensors to the small pictures of a report."""

from __future__ import annotations

import io
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from encodercheck.exhibits import Gallery, Picture

if TYPE_CHECKING:
    from PIL import Image

    from encodercheck.methods.dede import Dede
    from encodercheck.trigger import Trigger

# Larger pictures are made smaller; smaller ones are enlarged where they are shown.
MOST_PIXELS = 96
# A picture with a side above this, a photograph, keeps 256 colours: a third of the bytes.
TRUE_COLOUR = 48
STAMPED = 3
# Pixels round a trigger's box that its close-up shows too.
MARGIN = 1


def picture(pixels: Tensor, *, caption: str, alt: str) -> Picture:
    """Return pixels in [0, 1] as a picture; (1, H, W) are grey, (4, H, W) have transparency."""
    from PIL import Image

    values = (pixels.detach().float().cpu().nan_to_num(1.0).clamp(0, 1) * 255).round()
    array = values.to(torch.uint8).permute(1, 2, 0).numpy()
    image = Image.fromarray(array[:, :, 0] if array.shape[2] == 1 else array)
    longest = max(image.size)
    if longest > MOST_PIXELS:
        width, height = (max(1, side * MOST_PIXELS // longest) for side in image.size)
        # Averaging leaves a trace even of a single pixel.
        image = image.resize((width, height), Image.Resampling.BOX)
    if longest > TRUE_COLOUR and image.mode == "RGB":
        image = image.quantize(256, dither=Image.Dither.NONE)
    return Picture(caption, alt, _png(image), *image.size)


def of_trigger(trigger: Trigger, images: Tensor) -> Gallery:
    """Show mask and pattern, an image (of N, 3, H, W), and some with the trigger on them."""
    what = trigger.describe()
    shown = [
        picture(trigger.mask, caption="mask", alt=f"The mask, white where it covers: {what}"),
        picture(_close_up(trigger), caption="pattern", alt=f"The pattern, in close-up: {what}"),
    ]
    if len(images):
        shown.append(picture(images[0], caption="image", alt="A clean image"))
    for number, image in enumerate(trigger.stamp(images[:STAMPED].cpu()), start=1):
        alt = f"Clean image {number} with the trigger on it"
        shown.append(picture(image, caption="stamped", alt=alt))
    return Gallery("The trigger", (tuple(shown),))


def _close_up(trigger: Trigger) -> Tensor:
    """Return what the trigger shows within its box (4, h, w), transparent outside of the mask."""
    pattern, mask = trigger.pattern.cpu(), trigger.mask.cpu()
    if trigger.additive:
        # A faint pattern is shown at full contrast, grey for no change.
        change = mask * pattern
        seen = 0.5 + 0.5 * change / change.abs().max().clamp_min(1e-6)
        return torch.cat([seen, torch.ones_like(mask)])
    top, left, height, width = trigger.box
    rows = slice(max(0, top - MARGIN), top + height + MARGIN)
    columns = slice(max(0, left - MARGIN), left + width + MARGIN)
    whole = torch.cat([pattern, mask])
    return whole[:, rows, columns] if height and width else whole


def of_reconstructions(dede: Dede, images: Tensor, trigger: Trigger) -> list[Gallery]:
    """Show images (N, 3, H, W), what a decoder makes of their embeddings, and its errors.

    Once as they are and once with the trigger on them; all errors share one scale.
    """
    images = images.cpu()
    seen, decoded = dede.reconstruct(torch.cat([images, trigger.stamp(images)]))
    errors = (seen - decoded).square().mean(1, keepdim=True).nan_to_num(1.0)
    heat = errors / errors.max().clamp_min(1e-6)
    parts = {"Without the trigger": slice(0, len(images)), "With it": slice(len(images), None)}
    return [
        Gallery(
            title,
            tuple(
                _reconstruction(number, title, *row)
                for number, row in enumerate(
                    zip(seen[part], decoded[part], heat[part], errors[part], strict=True), start=1
                )
            ),
        )
        for title, part in parts.items()
    ]


def _reconstruction(
    number: int, title: str, image: Tensor, decoded: Tensor, heat: Tensor, error: Tensor
) -> tuple[Picture, ...]:
    name = f"image {number}, {title[0].lower()}{title[1:]}"
    mean = f"mean squared error {float(error.mean()):.3g}"
    return (
        picture(image, caption="image", alt=f"The original of {name}"),
        picture(decoded, caption="decoded", alt=f"The reconstruction of {name}"),
        picture(heat, caption="error", alt=f"The error of {name}, white where largest: {mean}"),
    )


def _png(image: Image.Image) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, format="PNG")
    return buffer.getvalue()
