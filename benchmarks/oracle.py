"""Saved encoders, loaded again: are their features those of the libraries' own models?

    python -m benchmarks.oracle

takes each architecture of the tables below with random weights, saves it as training code does
(five wrappers of tests/wrappers.py in turn, and the layouts of the transformers library), loads the
file without a hint, and compares features with those of the library's own model on the same images.
Of several encoders in a file all but the expected one are zeros.

*Identified*: the answer is the architecture or another of the same function, by the shipped index.
*Ambiguous*: the candidates list it; it is loaded again with its name as ``--arch``. *Wrong*: the
answer is another function, or the candidates do not list it. *Missed*: no answer. Errors are
absolute up to features of 1, relative to the largest one beyond. Writes docs/oracle.json and
docs/oracle.md; the exit code is 1 if any file is wrong, missed, or above the limit.
"""

from __future__ import annotations

import argparse
import copy
import json
import math
import os
import shutil
import sys
import tempfile
import warnings
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from functools import partial
from importlib import metadata
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from benchmarks.names import FUNCTIONS, OUTCOMES
from encodercheck.cache import atomic_write_text
from encodercheck.encoder import Encoder
from encodercheck.errors import AmbiguousArchitecture, EncoderCheckError
from encodercheck.loading import load
from encodercheck.weights import index
from encodercheck.weights.build import split

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT / "tests"))
import originals  # noqa: E402
import wrappers  # noqa: E402

Row = dict[str, Any]

TOLERANCE = 1e-5
IMAGES = 3
# Of a file each, beside those of a Sequential.
WRAPPERS_EACH = 5
# Features that are smaller, or that the images do not change, would prove nothing. The variation
# is the root mean square of what differs from the images' mean, as a share of the features'.
LEAST_SCALE = 0.1
LEAST_VARIATION = 0.02

DISTRIBUTIONS = ("torch", "torchvision", "timm", "open_clip_torch", "transformers")
# Another image size only where tensors show it: those that compute positions leave no trace.
LIBRARIES = {
    "torchvision": """
        resnet18 resnet50 resnext50_32x4d wide_resnet50_2 densenet121 mobilenet_v2
        mobilenet_v3_small efficientnet_b0 efficientnet_v2_s shufflenet_v2_x0_5 mnasnet0_5
        regnet_y_400mf convnext_tiny swin_t swin_v2_t vit_b_32 maxvit_t googlenet inception_v3
        googlenet,aux_logits=False vit_b_32,image_size=160
        """,
    "timm": """
        vit_tiny_patch16_224 vit_small_patch16_224 deit_tiny_distilled_patch16_224
        beit_base_patch16_224 cait_xxs24_224 xcit_nano_12_p16_224 eva02_tiny_patch14_224
        vit_small_patch14_dinov2 vit_tiny_patch16_dinov3_qkvb vit_small_patch16_dinov3
        flexivit_small vit_relpos_small_patch16_224 vit_xsmall_patch16_clip_224
        vit_medium_patch16_rope_reg1_gap_256 vit_tiny_r_s16_p8_224 samvit_base_patch16_224
        swin_tiny_patch4_window7_224 swinv2_tiny_window8_256 swinv2_cr_tiny_ns_224
        maxvit_pico_rw_256 coatnet_pico_rw_224 levit_128s mobilevit_xxs mobilevitv2_050
        edgenext_xx_small efficientformer_l1 efficientformerv2_s0 poolformer_s12 pit_ti_224
        pit_ti_distilled_224 pvt_v2_b0 twins_svt_small twins_pcpvt_small tiny_vit_5m_224
        gcvit_xxtiny mixer_s32_224 resmlp_12_224 gmlp_ti16_224 hiera_tiny_224 crossvit_tiny_240
        visformer_tiny coat_tiny convit_tiny volo_d1_224 davit_tiny focalnet_tiny_srf
        tnt_s_patch16_224 nest_tiny mvitv2_tiny caformer_s18 nextvit_small sequencer2d_s csatv2
        mambaout_femto efficientvit_b0 efficientvit_m0 shvit_s1 swiftformer_xs starnet_s050
        convnext_atto convnextv2_atto inception_next_atto rdnet_tiny nfnet_l0 eca_nfnet_l0
        regnetx_002 regnety_002 regnetz_005 ghostnet_050 ghostnetv2_100 hrnet_w18_small dla46_c
        fastvit_t8 repvgg_a0 mobileone_s0 repvit_m0_9 resnet18 resnet26t resnetaa34d resnetblur18
        seresnet18 skresnet18 gcresnet33ts resnetv2_18 resnetv2_50x1_bit res2net50_14w_8s
        resnest14d halonet26t lambda_resnet26t dpn48b cs3darknet_focus_s ese_vovnet19b_slim_dw
        gernet_s hgnetv2_b0 selecsls42 legacy_xception rexnet_100 efficientnet_b0
        tf_efficientnet_b0 tf_efficientnetv2_b0 mobilenetv3_small_050 mobilenetv4_conv_small
        lcnet_050 tinynet_e
        vit_tiny_patch16_224,img_size=160 vit_small_patch16_224,img_size=96
        deit_tiny_distilled_patch16_224,img_size=160 beit_base_patch16_224,img_size=160
        cait_xxs24_224,img_size=160 xcit_nano_12_p16_224,img_size=160
        eva02_tiny_patch14_224,img_size=280 vit_small_patch14_reg4_dinov2,img_size=224
        flexivit_small,img_size=160 vit_tiny_r_s16_p8_224,img_size=160
        levit_128s,img_size=160 pit_ti_224,img_size=160 hiera_tiny_224,img_size=256
        gcvit_xxtiny,img_size=256 crossvit_tiny_240,img_size=480 convit_tiny,img_size=160
        volo_d1_224,img_size=160 tnt_s_patch16_224,img_size=160 mvitv2_tiny,img_size=160
        """,
    "open_clip": """
        RN50 RN50-quickgelu ViT-S-32 ViT-S-32-alt ViT-M-32-alt ViT-B-32 ViT-B-32-quickgelu
        convnext_tiny ViTamin-S MobileCLIP-S1 MobileCLIP2-S0 ViT-B-32-SigLIP2-256
        PE-Core-T-16-384 vit_relpos_medium_patch16_cls_224
        RN50,image_size=160 ViT-S-32-alt,image_size=320 ViT-B-32,image_size=160
        """,
}
SEQUENTIAL = ("resnet18", "resnet50", "resnext50_32x4d", "wide_resnet50_2")
# What a name may be followed by without being another function.
SAME_FUNCTION = frozenset({*index.SIZE_OPTIONS.values(), "aux_logits"})


@dataclass(frozen=True)
class Folder:
    """A model type of the transformers library: its classes, a small config, and its features.

    ``features`` are what :func:`originals.transformers_features` takes of the ``model``'s outputs,
    ``head_features`` of the ``head``'s where that differs.
    """

    model: str
    values: dict[str, Any]
    features: str
    head: str = ""
    head_features: str = ""


TOKENS = {
    "hidden_size": 32,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "image_size": 48,
    "patch_size": 8,
}
VIT = {**TOKENS, "intermediate_size": 64}
STAGES = {"hidden_sizes": [8, 16, 24, 32], "depths": [1, 1, 2, 1], "image_size": 64}
SWIN = {"image_size": 56, "patch_size": 2, "embed_dim": 16, "depths": [2, 2], "num_heads": [2, 4]}
TEXT = {**VIT, "vocab_size": 200}
TOWERS = {"vision_config": VIT, "text_config": TEXT, "projection_dim": 24}
FOLDERS = (
    Folder("ViTModel", VIT, "class token", "ViTForImageClassification"),
    Folder("DeiTModel", VIT, "class token", "DeiTForImageClassificationWithTeacher"),
    Folder("ViTMAEModel", VIT, "class token", "ViTMAEForPreTraining"),
    Folder("ViTMSNModel", VIT, "class token", "ViTMSNForImageClassification"),
    Folder("IJepaModel", VIT, "mean", "IJepaForImageClassification"),
    Folder("Dinov2Model", TOKENS, "pooled", "Dinov2ForImageClassification"),
    Folder(
        "Dinov2WithRegistersModel", TOKENS, "pooled", "Dinov2WithRegistersForImageClassification"
    ),
    Folder("DINOv3ViTModel", VIT, "pooled"),
    Folder("DINOv3ConvNextModel", STAGES, "pooled"),
    Folder("CLIPModel", TOWERS, "image features", "CLIPForImageClassification", "pooled"),
    Folder("CLIPVisionModel", VIT, "pooled"),
    Folder("ChineseCLIPModel", TOWERS, "image features"),
    Folder(
        "MetaClip2Model",
        {**TOWERS, "text_config": {**TEXT, "eos_token_id": 2}},
        "image features",
        "MetaClip2ForImageClassification",
        "pooled",
    ),
    Folder("SiglipModel", TOWERS, "image features", "SiglipForImageClassification", "pooled"),
    Folder("ResNetModel", STAGES, "pooled", "ResNetForImageClassification"),
    Folder("RegNetModel", {**STAGES, "groups_width": 8}, "pooled", "RegNetForImageClassification"),
    Folder("ConvNextModel", STAGES, "pooled", "ConvNextForImageClassification"),
    Folder("ConvNextV2Model", STAGES, "pooled", "ConvNextV2ForImageClassification"),
    Folder("SwinModel", SWIN, "pooled", "SwinForImageClassification"),
    Folder("Swinv2Model", SWIN, "pooled", "Swinv2ForImageClassification"),
    Folder("BeitModel", VIT, "pooled", "BeitForImageClassification"),
    Folder(
        "Data2VecVisionModel",
        VIT,
        "patch mean",
        "Data2VecVisionForImageClassification",
        "pooled",
    ),
)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--only", default="", help="architectures that contain this")
    parser.add_argument("--part", default="1/1", help="i/n: every n-th architecture, from the i-th")
    parser.add_argument("--jobs", type=int, default=1, help="processes at a time")
    parser.add_argument("--out", type=Path, default=ROOT / "docs" / "oracle")
    options = parser.parse_args()
    rows = []
    part, parts = map(int, options.part.split("/"))
    versions = {name: metadata.version(name) for name in DISTRIBUTIONS}
    archs = [arch for arch in table() if options.only in arch][part - 1 :: parts]
    for some in judged(archs, options.jobs):
        rows += some
        # A run that is stopped keeps what it has found.
        atomic_write_text(options.out.with_suffix(".json"), as_json(versions, rows))
        atomic_write_text(options.out.with_suffix(".md"), page(versions, rows))
        print(line(some), flush=True)
        for row in [row for row in some if failed(row)][:1]:
            print(f"  {json.dumps(row)}", flush=True)
    raise SystemExit(any(map(failed, rows)))


def table() -> list[str]:
    """Return every architecture, its library first."""
    named = [f"{library}:{name}" for library, text in LIBRARIES.items() for name in text.split()]
    return [*named, *(f"transformers:{folder.model}" for folder in FOLDERS)]


def judged(archs: Iterable[str], jobs: int) -> Iterator[list[Row]]:
    """Yield the rows of each architecture."""
    if jobs == 1:
        yield from map(rows_of, archs)
        return
    threads = max(1, (os.cpu_count() or 1) // jobs)
    with ProcessPoolExecutor(
        jobs, get_context("spawn"), torch.set_num_threads, (threads,)
    ) as processes:
        yield from processes.map(rows_of, archs)


def rows_of(arch: str, only: Iterable[str] = ()) -> list[Row]:
    """Return a row for each way to save an architecture, or for those of ``only``."""
    library, _, name = arch.partition(":")
    with warnings.catch_warnings(), tempfile.TemporaryDirectory() as folder:
        warnings.simplefilter("ignore")
        if library == "transformers":
            chosen = next(folder for folder in FOLDERS if folder.model == name)
            return rows_of_folder(chosen, Path(folder), only)
        return rows_of_library(arch, Path(folder), only)


class Original:
    """A library's own model: how to run it, and the features that it makes of images."""

    def __init__(self, arch: str, run: Callable[[Tensor], Tensor]) -> None:
        self.arch = arch
        self.run = run
        self.made: dict[int, Tensor] = {}

    def features(self, size: int) -> Tensor:
        """Return the features of the images of a size."""
        if size not in self.made:
            self.made[size] = self.run(originals.images(IMAGES, size))
        return self.made[size]


def rows_of_library(arch: str, folder: Path, only: Iterable[str]) -> list[Row]:
    """Return the rows of a model of torchvision, timm or open_clip: a file under each wrapper."""
    model = originals.full(arch)
    originals.enliven(model, originals.image_size(arch, model))
    whole = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    names = originals.encoder_names(arch, model)
    encoder = {alone: whole[name] for name, alone in names.items()}
    original = Original(arch, partial(originals.features, arch, model))
    path = folder / "model.safetensors"
    rows = []
    wanted = set(only) or some_wrappers(arch)
    for wrapper, made in saved(arch, whole, encoder).items():
        if wrapper not in wanted:
            continue
        save_file(made(), path)
        text = arch.startswith("open_clip:") and wrapper not in wrappers.WITHOUT_CLASSIFIER
        rows.append({"arch": arch, "wrapper": wrapper, **judge(path, original, text_tower=text)})
    return rows


def saved(
    arch: str, whole: wrappers.State, encoder: wrappers.State
) -> dict[str, Callable[[], wrappers.State]]:
    """Return how to make the tensors of a file under each wrapper."""
    made: dict[str, Callable[[], wrappers.State]] = {
        name: partial(wrap, encoder if name in wrappers.WITHOUT_CLASSIFIER else whole)
        for name, wrap in wrappers.WRAPPERS.items()
    }
    if arch.removeprefix("torchvision:") in SEQUENTIAL:
        children = wrappers.sequential(whole)
        for name in ("plain", "lightly", "BadEncoder"):
            made[f"{name}, Sequential"] = partial(wrappers.WRAPPERS[name], children)
    return made


def some_wrappers(arch: str) -> set[str]:
    """Return the plain file and some other wrappers, so that each gets its turn with many."""
    plain, *others = wrappers.WRAPPERS
    start = sum(arch.encode()) % len(others)
    turn = [*others[start:], *others[:start]][: WRAPPERS_EACH - 1]
    sequential = {f"{name}, Sequential" for name in ("plain", "lightly", "BadEncoder")}
    return {plain, *turn} | sequential


def rows_of_folder(folder: Folder, root: Path, only: Iterable[str]) -> list[Row]:
    """Return the rows of a model type of transformers: a folder in each of its layouts."""
    rows = []
    for layout, model, tower, kind in layouts(folder):
        if only and layout not in only:
            continue
        path = root / layout
        save(model, path, layout)
        run = partial(originals.transformers_features, kind, tower)
        original = Original(f"transformers:{model.config.model_type}", run)
        row = judge(path, original, text_tower=hasattr(model, "text_model"))
        if layout == "sharded" and len(list(path.glob("*.safetensors"))) < 2:
            row["faults"].append("not sharded")
        rows.append({"arch": f"transformers:{folder.model}", "wrapper": layout, **row})
        shutil.rmtree(path)
    return rows


def layouts(folder: Folder) -> Iterator[tuple[str, Any, Any, str]]:
    """Yield each layout, a model to save in it, its part without the head, and its features."""
    base = pretrained(folder.model, folder.values)
    for layout in ("base model", "sharded", "module."):
        yield layout, base, base, folder.features
    if folder.head:
        head = pretrained(folder.head, folder.values)
        tower = getattr(head, "vision_model", head.base_model)
        yield "with a head", head, tower, folder.head_features or folder.features
    # Last, for the weights are rounded in place.
    for parameter in base.parameters():
        parameter.data = parameter.data.bfloat16().float()
    for norm in originals.batch_norms(base):
        for statistic in (norm.running_mean, norm.running_var):
            statistic.copy_(statistic.bfloat16())
    yield "bfloat16", base, base, folder.features


def save(model: Any, path: Path, layout: str) -> None:
    """Save a model of the transformers library."""
    if layout == "bfloat16":
        # A copy: what a model computes by itself would be rounded too.
        model = copy.deepcopy(model).bfloat16()
    model.save_pretrained(path, **({"max_shard_size": "20KB"} if layout == "sharded" else {}))
    if layout == "module.":
        file = path / "model.safetensors"
        save_file(wrappers.under("module.", load_file(file)), file)


def pretrained(name: str, values: dict[str, Any]) -> Any:
    """Return a model of the transformers library with random weights."""
    import transformers

    transformers.logging.set_verbosity_error()
    transformers.logging.disable_progress_bar()
    kind = getattr(transformers, name)
    with torch.random.fork_rng(devices=[]):
        model = kind(kind.config_class(**copy.deepcopy(values))).eval()
    originals.enliven(model, values.get("image_size", VIT["image_size"]))
    return model


def judge(path: Path, original: Original, *, text_tower: bool) -> Row:
    """Return what becomes of a file: the outcome, the features' error, and what is wrong."""
    row: Row = {"outcome": "missed", "answer": "", "candidates": [], "faults": []}
    try:
        encoder = identified(path, original.arch, row)
        row |= measured(encoder, original)
    except EncoderCheckError as error:
        row["faults"].append(str(error).replace(str(path.parent), "..."))
        return row
    except Exception as error:
        row["faults"].append(f"{type(error).__name__}: {error!s:.200}")
        return row
    if (encoder.provenance.text_tower is not None) != text_tower:
        row["faults"].append("a text tower overlooked" if text_tower else "no text tower there")
    row["faults"] += doubts(row)
    return row


def identified(path: Path, arch: str, row: Row) -> Encoder:
    """Load a file, and note in the row how its architecture was found."""
    try:
        encoder = load(path, device="cpu")
    except AmbiguousArchitecture as error:
        row["candidates"] = list(error.candidates)
        listed = any(same(candidate, arch) for candidate in error.candidates)
        row["outcome"] = "ambiguous" if listed else "wrong"
        return load(path, arch=arch, device="cpu")
    row["answer"] = encoder.provenance.architecture
    row["outcome"] = "identified" if same(row["answer"], arch) else "wrong"
    return encoder


def same(one: str, other: str) -> bool:
    """Tell whether two names are of the same function, but for the image size."""
    return function(one) == function(other)


def function(arch: str) -> Any:
    name, options = split(arch)
    rest = {key: value for key, value in options.items() if key not in SAME_FUNCTION}
    return FUNCTIONS.get(name, name), rest


def measured(encoder: Encoder, original: Original) -> Row:
    """Return how far an encoder's features are from the original's, and how those are."""
    size = encoder.image_size
    expected = original.features(size)
    with torch.no_grad():
        found = encoder.module(originals.images(IMAGES, size))
    largest = expected.abs().max().item()
    same_shape = found.shape == expected.shape
    error = (found - expected).abs().max().item() / max(1.0, largest) if same_shape else math.inf
    spread = (expected - expected.mean(0)).square().mean() / expected.square().mean()
    return {
        "image_size": size,
        "dimension": expected.shape[1],
        "error": error if math.isfinite(error) else None,
        "scale": largest,
        "variation": spread.sqrt().item(),
    }


def doubts(row: Row) -> Iterator[str]:
    """Say what the measurements of a row leave to be desired."""
    if row["error"] is None or row["error"] > TOLERANCE:
        yield "other features"
    if not row["scale"] >= LEAST_SCALE:
        yield "the original's features are tiny"
    if not row["variation"] >= LEAST_VARIATION:
        yield "the original's features hardly vary"


def failed(row: Row) -> bool:
    return row["outcome"] in ("wrong", "missed") or bool(row["faults"])


def line(rows: list[Row]) -> str:
    """Say in a line what became of an architecture's files."""
    counts = Counter(row["outcome"] for row in rows)
    texts = ", ".join(f"{counts[outcome]} {outcome}" for outcome in OUTCOMES if counts[outcome])
    return f"{rows[0]['arch']}: {texts}, error {worst(rows):.1e}"


def worst(rows: Iterable[Row]) -> float:
    return max((row["error"] for row in rows if row.get("error") is not None), default=math.nan)


def as_json(versions: dict[str, str], rows: list[Row]) -> str:
    """Return everything as JSON, a row to a line."""
    about = {"versions": versions, "index": index.load().versions, "tolerance": TOLERANCE}
    body = ",\n".join(f"  {json.dumps(rounded(row))}" for row in rows)
    return f'{json.dumps(about)[:-1]}, "rows": [\n{body}\n]}}\n'


def rounded(row: Row) -> Row:
    return {k: float(f"{v:.3g}") if isinstance(v, float) else v for k, v in row.items()}


def page(versions: dict[str, str], rows: list[Row]) -> str:
    """Return the tables as Markdown."""
    archs = list(dict.fromkeys(row["arch"] for row in rows))
    by_arch = {arch: [row for row in rows if row["arch"] == arch] for arch in archs}
    libraries = list(dict.fromkeys(arch.partition(":")[0] for arch in archs))
    lines = [
        "# Features of loaded encoders against the libraries' own",
        "",
        f"Made by `python -m benchmarks.oracle` with "
        f"{', '.join(f'{name} {version}' for name, version in versions.items())}: random weights, "
        "saved as training code saves them, loaded without a hint.",
        "",
        f"| library | architectures | files | {' | '.join(OUTCOMES)} "
        "| other faults | worst error |",
        "| --- " * (5 + len(OUTCOMES)) + "|",
        *(
            total(library, [row for row in rows if row["arch"].startswith(f"{library}:")])
            for library in libraries
        ),
        total("all", rows),
        "",
        f"Errors are of {IMAGES} images' features: absolute up to features of 1, relative to the "
        f"largest beyond; the limit is {TOLERANCE:g}.",
        "",
        "| architecture | px | features | variation | files | outcome | worst error |",
        "| --- " * 7 + "|",
        *map(summary, by_arch.values()),
    ]
    groups = sorted({" · ".join(row["candidates"]) for row in rows if row["candidates"]})
    lines += ["", "## Ambiguous: same tensors, different features", ""]
    lines += [f"- {group}" for group in groups]
    bad = [row for row in rows if failed(row)]
    if bad:
        lines += ["", "## Failed", ""]
        lines += [f"- {fault(row)}" for row in bad]
    return "\n".join(lines) + "\n"


def total(name: str, rows: list[Row]) -> str:
    counts = Counter(row["outcome"] for row in rows)
    faults = sum(bool(row["faults"]) for row in rows if row["outcome"] not in ("wrong", "missed"))
    cells = [len({row["arch"] for row in rows}), len(rows), *(counts[o] for o in OUTCOMES), faults]
    return f"| {name} | {' | '.join(map(str, cells))} | {worst(rows):.1e} |"


def summary(rows: list[Row]) -> str:
    """Return the line of an architecture in the table; where outcomes differ, say the fewer."""
    counts = Counter(row["outcome"] for row in rows)
    (outcome, _), *rest = counts.most_common()
    for other, _ in rest:
        outcome += (
            f"; {other} under {', '.join(r['wrapper'] for r in rows if r['outcome'] == other)}"
        )
    known = next((row for row in rows if "error" in row), None)
    measures = (
        f"{known['image_size']} | {known['dimension']} | {known['variation']:.2f}"
        if known
        else "– | – | –"
    )
    return f"| {rows[0]['arch']} | {measures} | {len(rows)} | {outcome} | {worst(rows):.1e} |"


def fault(row: Row) -> str:
    answer = row["answer"] or " · ".join(row["candidates"])
    return f"{row['arch']}, {row['wrapper']}: {row['outcome']} {answer} {'; '.join(row['faults'])}"


if __name__ == "__main__":
    main()
