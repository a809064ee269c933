"""Deliberate defects of the checks, each of which a test has to notice.

The table that ``python -m benchmarks.mutations`` works through: one edit of one file each, what
the user would suffer from it, and the tests that are to go red.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Defect:
    """One edit of the package: the only ``old`` in ``file`` becomes ``new``.

    ``suffers`` says in a sentence what a user would get; ``tests`` are the files and functions
    under ``tests`` that are to notice, the cheapest that do.
    """

    name: str
    suffers: str
    file: str
    old: str
    new: str
    tests: tuple[str, ...]


ALIKE = "test_checks.py::test_a_backdoor_fails_with_a_witness_and_its_absence_passes"
UNSEEN = "test_checks.py::test_what_works_on_the_search_images_alone_fails_no_encoder"
KEPT = "test_inversion.py::test_projected_triggers_keep_within_their_family"
SEARCHES = "test_inversion.py::test_searches_repeat_themselves_and_leave_random_numbers_alone"
OUTCOMES = "test_harness.py::test_outcomes"
WORST = "test_dede.py::test_the_worst_of_several_triggers_is_held_against_random_ones"

VERDICTS = (
    Defect(
        "compare-flipped",
        "Every clean encoder fails, and every poisoned one passes.",
        "encodercheck/harness/fixtures.py",
        '{"at_most": clean.limit} if upward else',
        '{"at_most": clean.limit} if not upward else',
        ("test_harness.py::test_a_limit_set_by_hand_needs_no_clean_encoders_and_ends_the_search",),
    ),
    Defect(
        "sides-swapped",
        "A limit written as at_most is applied as at_least.",
        "encodercheck/report.py",
        "if self.direction is Direction.AT_LEAST\n",
        "if self.direction is Direction.AT_MOST\n",
        ("test_report.py::test_a_value_is_within_exactly_its_side",),
    ),
    Defect(
        "nan-passes",
        "An encoder whose measurement is NaN passes.",
        "encodercheck/report.py",
        "else self.value <= self.limit",
        "else not self.value > self.limit",
        ("test_report.py::test_nan_never_passes",),
    ),
    Defect(
        "inconclusive-passes",
        "A check that could not decide clears the model.",
        "encodercheck/harness/outcome.py",
        "        return Phase(Outcome.INCONCLUSIVE, first_line(error))",
        "        return Phase(Outcome.PASSED, first_line(error))",
        (OUTCOMES,),
    ),
    Defect(
        "crash-passes",
        "A check that crashed clears the model.",
        "encodercheck/harness/outcome.py",
        "return Phase(Outcome.ERROR, describe(error), details_of(report))",
        "return Phase(Outcome.PASSED, describe(error), details_of(report))",
        ("test_harness.py::test_pitfall_2_a_crash_is_no_failure",),
    ),
    Defect(
        "shortfall-forgotten",
        "What a fixture measured beyond its limit is forgotten, and the check passes.",
        "encodercheck/harness/outcome.py",
        "elif undecided and record.shortfall:",
        "elif outcome is Outcome.INCONCLUSIVE and record.shortfall:",
        ("test_harness.py::test_outcomes_of_setup_and_teardown",),
    ),
    Defect(
        "exit-code-of-a-failure",
        "A gate lets a model in that failed.",
        "encodercheck/report.py",
        "    if verdict is Outcome.FAILED:\n        return 1",
        "    if verdict is Outcome.FAILED:\n        return 0",
        ("test_report.py::test_exit_codes",),
    ),
    Defect(
        "exit-code-of-the-command",
        "The report says failed, and the command line ends with 0.",
        "encodercheck/cli/scan.py",
        "    raise typer.Exit(report.exit_code)\n",
        "    raise typer.Exit(0)\n",
        ("test_cli.py::test_a_custom_check_joins_the_suite",),
    ),
    Defect(
        "no-witness-file",
        "A failed check says that it has a witness, and the report names no file.",
        "encodercheck/harness/artifacts.py",
        "        self._record.witness = str(path)\n",
        "",
        ("test_harness.py::test_a_witness_is_saved_and_worded",),
    ),
    Defect(
        "no-witness-of-a-check",
        "A failed check shows nobody what breaks the encoder.",
        "checks/check_ec202_budget.py",
        """\
    if not compare_collapse(encoder, inversion, half_contrast=True, whitened=True):
        artifacts.witness(shrink(encoder, inversion.trigger, clean_split))
""",
        "    compare_collapse(encoder, inversion, half_contrast=True, whitened=True)\n",
        (f"{ALIKE}[EC202]",),
    ),
)

TRIGGERS = (
    Defect(
        "not-stamped",
        "No trigger does anything: every poisoned encoder passes.",
        "encodercheck/trigger.py",
        "return images + mask * (pattern - images)",
        "return images + 0 * mask * (pattern - images)",
        ("test_trigger.py::test_an_opaque_mask_shows_the_pattern_alone",),
    ),
    Defect(
        "not-clipped",
        "Stamped images leave [0, 1]: witnesses that no picture can carry.",
        "encodercheck/trigger.py",
        "return (images + mask * pattern).clamp(0, 1)",
        "return images + mask * pattern",
        ("test_trigger.py::test_stamped_images_stay_images",),
    ),
    Defect(
        "battery-without-patches",
        "The commonest backdoors are tried no longer.",
        "encodercheck/methods/battery.py",
        "return [*_patches(size, seed), *_frequencies(size)]",
        "return [*_frequencies(size)]",
        ("test_inversion.py::test_the_backdoor_of_a_patch_is_found_and_the_search_ends_early",),
    ),
    Defect(
        "battery-worst-first",
        "The triggers that do least are the ones that are confirmed and searched from.",
        "encodercheck/methods/battery.py",
        "key=lambda hit: -hit.score",
        "key=lambda hit: hit.score",
        ("test_inversion.py::test_the_backdoor_of_a_patch_is_found_and_the_search_ends_early",),
    ),
    Defect(
        "weaker-shrinking",
        "The witness is a trigger that works on the search images alone.",
        "encodercheck/methods/shrink.py",
        "        last = witness(encoder, stage, split.held_out, base=first.base)",
        "        last = witness(encoder, stage, split.search, base=first.base)",
        ("test_shrink.py::test_shrinking_never_grows_and_is_measured_on_held_out_images",),
    ),
)

SEARCH = (
    Defect(
        "gradient-zeroed",
        "The search does not move: only triggers of the battery are ever found.",
        "encodercheck/methods/ascent.py",
        "adam.descend([-gradient for gradient in gradients], LEARNING_RATE)",
        "adam.descend([0 * gradient for gradient in gradients], LEARNING_RATE)",
        ("test_inversion.py::test_targets_are_approached",),
    ),
    Defect(
        "gradient-detached",
        "Every check that searches a trigger crashes.",
        "encodercheck/methods/ascent.py",
        "stamped = family.stamp(images, *leaves)",
        "stamped = family.stamp(images, *leaves).detach()",
        ("test_inversion.py::test_targets_are_approached",),
    ),
    Defect(
        "minimising",
        "The search runs away from every trigger.",
        "encodercheck/methods/ascent.py",
        "adam.descend([-gradient for gradient in gradients], LEARNING_RATE)",
        "adam.descend(gradients, LEARNING_RATE)",
        ("test_inversion.py::test_targets_are_approached",),
    ),
    Defect(
        "decree-does-not-shrink",
        "The smallest trigger is the one that the search began with: EC201 sees no backdoor.",
        "encodercheck/methods/decree.py",
        "mask_gradients = (self.weight - mask_gradients) * 2 * masks * (1 - masks)",
        "mask_gradients = 0 * mask_gradients",
        ("test_shrink.py::test_decree_makes_the_trigger_smaller",),
    ),
    Defect(
        "decree-confirms-all",
        "A mask that fits the search images alone fails a clean encoder.",
        "encodercheck/methods/decree.py",
        "        if collapse.gain(cosine, base) >= least_gain:\n            return trigger",
        "        return trigger",
        ("test_shrink.py::test_decree_confirms_only_what_works_on_other_images",),
    ),
    Defect(
        "budget-not-projected",
        "A trigger may cover the whole image, and every clean encoder fails.",
        "encodercheck/methods/families.py",
        "masks.copy_(project(masks, self.budget))",
        "masks.clamp_(0, 1)",
        (f"{KEPT}[pixels]",),
    ),
    Defect(
        "box-outgrows-its-budget",
        "Rectangles are larger than the check says.",
        "encodercheck/methods/families.py",
        "(masks * (self.area / masks.sum((1, 2), keepdim=True)).clamp(max=1))",
        "masks",
        (f"{KEPT}[boxes]",),
    ),
    Defect(
        "faint-not-bounded",
        "EC203 fails clean encoders by changes that anybody would see.",
        "encodercheck/methods/families.py",
        "self.parameters[0].clamp_(-self.bound, self.bound)",
        "self.parameters[0].clamp_(-1, 1)",
        (f"{KEPT}[additive]",),
    ),
    Defect(
        "faint-bound-too-large",
        "EC203 fails clean encoders by changes that its description rules out.",
        "encodercheck/methods/inversion.py",
        "return Additive([noise * ADDITIVE_BOUND], ADDITIVE_BOUND)",
        "return Additive([noise * ADDITIVE_BOUND], 4 * ADDITIVE_BOUND)",
        ("test_inversion.py::test_a_faint_trigger_changes_no_more_than_it_may",),
    ),
    Defect(
        "always-found",
        "A search ends after three steps, with whatever it has.",
        "encodercheck/methods/stopping.py",
        "if len(self._recent) >= FOUND_STEPS and float(steadily) >= self._found:",
        "if len(self._recent) >= FOUND_STEPS:",
        ("test_inversion.py::test_without_a_limit_a_search_goes_to_its_end",),
    ),
    Defect(
        "always-hopeless",
        "A search that is about to find a trigger is given up.",
        "encodercheck/methods/stopping.py",
        "return now + (self.steps - step) * FASTER * rise < PROMISING",
        "return True",
        ("test_inversion.py::test_a_search_near_collapse_goes_on",),
    ),
)

IMAGES = (
    Defect(
        "images-reused",
        "Triggers are scored on the images that they were searched on.",
        "encodercheck/images/split.py",
        "return _floats(self.pixels[self.search :][:most])",
        "return _floats(self.pixels[:most])",
        ("test_harness.py::test_the_split_holds_images_out",),
    ),
    *(
        Defect(
            f"{check}-scored-on-search-images",
            f"{check} fails a clean encoder by a trigger that works on the search images alone.",
            file,
            old,
            old.replace("held_out", "search"),
            (f"{UNSEEN}[{check}]",),
        )
        for check, file, old in (
            (
                "EC201",
                "checks/check_ec201_decree.py",
                "decree.smallest_confirmed(encoder, candidates, clean_split.held_out)",
            ),
            (
                "EC202",
                "encodercheck/harness/fixtures.py",
                "unseen = clean_split.held_out",
            ),
        )
    ),
)

REPEATABLE = (
    Defect(
        "seed-fixed",
        "--seed changes nothing: a search that missed can never be repeated otherwise.",
        "encodercheck/methods/inversion.py",
        "generator = torch.Generator().manual_seed(settings.seed)",
        "generator = torch.Generator().manual_seed(0)",
        ("test_inversion.py::test_another_seed_searches_from_elsewhere",),
    ),
    Defect(
        "seed-left-out",
        "The same scan says something else each time.",
        "encodercheck/methods/inversion.py",
        "generator = torch.Generator().manual_seed(settings.seed)",
        "generator = torch.Generator()\n    generator.seed()",
        (SEARCHES,),
    ),
    Defect(
        "checks-share-a-seed",
        "--seed changes nothing that a check of one's own draws.",
        "encodercheck/harness/isolation.py",
        'hashlib.sha256(f"{seed}:{name}".encode())',
        "hashlib.sha256(name.encode())",
        ("test_harness.py::test_random_numbers_do_not_depend_on_what_ran_before",),
    ),
    Defect(
        "weights-not-put-back",
        "A check that writes into the weights spoils the verdicts of all after it.",
        "encodercheck/harness/lifecycle.py",
        "        scan.lender.take_back(item.name)\n",
        "        scan.lender.lent = False\n",
        (
            "test_harness.py"
            "::test_pitfall_8_what_a_check_writes_into_the_weights_is_undone[passing]",
        ),
    ),
)

ENCODER = (
    Defect(
        "train-mode",
        "BatchNorm follows the batch: embeddings of one image differ from call to call.",
        "encodercheck/encoder.py",
        "module.to(self.device).eval().requires_grad_(False)",
        "module.to(self.device).train().requires_grad_(False)",
        ("test_encoder.py::test_embeddings_and_gradients_do_not_depend_on_the_batch_size",),
    ),
    Defect(
        "preprocessing-left-out",
        "The encoder gets pixels that it was never trained on, and backdoors stay asleep.",
        "encodercheck/encoder.py",
        "return (images.to(self.device) - self._mean) / self._std",
        "return images.to(self.device)",
        ("test_encoder.py::test_pixels_are_normalised_as_the_preprocessing_says",),
    ),
    Defect(
        "diagonal-counted",
        "Each image is compared with itself: few images look alike, and limits mean nothing.",
        "encodercheck/methods/collapse.py",
        "return (total - directions.square().sum((-2, -1))) / (count * (count - 1))",
        "return total / count**2",
        ("test_collapse.py::test_mean_cosine_is_the_mean_over_pairs",),
    ),
    Defect(
        "gain-without-base",
        "Encoders whose clean embeddings are alike fail.",
        "encodercheck/methods/collapse.py",
        "return (cosine - base) / (1 - base)",
        "return cosine",
        ("test_collapse.py::test_gain_is_the_part_of_the_way_gone",),
    ),
)

NULLS = (
    Defect(
        "wrong-tail",
        "The most suspicious value has the largest p-value.",
        "encodercheck/methods/tails.py",
        "return 1 - student_t((value - self.centre) / self.width, self.freedom)",
        "return student_t((value - self.centre) / self.width, self.freedom)",
        ("test_nulls.py::test_the_more_suspicious_the_smaller_the_p_value",),
    ),
    Defect(
        "others-as-own",
        "An encoder is judged by other architectures as if they were its own.",
        "encodercheck/nulls.py",
        "same = [e for e in known if e.is_built_as(architecture, image_size, structure)]",
        "same = known",
        ("test_nulls.py::test_encoders_of_the_same_architecture_come_first",),
    ),
    Defect(
        "others-never-doubt",
        "What is unusual among other architectures passes, and nobody is asked for better.",
        "encodercheck/methods/null.py",
        "if self.required and wary and doubtful:",
        "if self.required and wary and doubtful and self.own:",
        ("test_nulls.py::test_a_doubtful_value_is_a_verdict_at_home_only",),
    ),
)

DEDE = (
    Defect(
        "drift-on-touched-patches",
        "EC301 fails clean encoders, because no decoder can draw the trigger itself.",
        "encodercheck/methods/drift.py",
        "patches = untouched if (untouched * hidden).any() else None",
        "patches = None",
        ("test_dede.py::test_an_honest_encoder_does_not_drift",),
    ),
    Defect(
        "drift-of-touched-patches",
        "EC301 looks where the trigger is, and not at what it spoils.",
        "encodercheck/methods/drift.py",
        "untouched = 1 - grid.touched(",
        "untouched = grid.touched(",
        ("test_dede.py::test_the_backdoors_own_trigger_drifts_and_random_ones_do_not",),
    ),
    Defect(
        "random-drift-kept",
        "EC301 fails encoders that any square of that size disturbs.",
        "encodercheck/methods/drift.py",
        "return self.shift - self.random",
        "return self.shift",
        (WORST,),
    ),
    Defect(
        "threshold-too-low",
        "More clean images are flagged than --rate allows.",
        "encodercheck/methods/thresholds.py",
        "math.ceil((count + 1) * (1 - rate) - 1e-9)",
        "math.ceil(count * (1 - rate) - 1e-9)",
        ("test_thresholds.py::test_thresholds_by_hand",),
    ),
    Defect(
        "threshold-on-training-images",
        "The threshold is set on images that the decoder knows: unseen clean ones are flagged.",
        "encodercheck/methods/dede.py",
        "self._keep_for_training(images[~held], self._grid)",
        "self._keep_for_training(images, self._grid)",
        ("test_dede.py::test_images_with_the_trigger_are_flagged_and_others_at_about_the_rate",),
    ),
)

DEFECTS = (
    *VERDICTS,
    *TRIGGERS,
    *SEARCH,
    *IMAGES,
    *REPEATABLE,
    *ENCODER,
    *NULLS,
    *DEDE,
)
