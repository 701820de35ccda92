"""A student's first weights: a linear code, block transforms of pictures, another run's or bundle's, or an encoder on
the way to a lead's latent."""

from __future__ import annotations

from statistics import fmean

from torch import Tensor

from splitcodec.errors import RecipeError
from splitcodec.model.klt import begin_as_blocks, widen_step
from splitcodec.model.pictures import PictureDecoder, PictureEncoder
from splitcodec.model.student import Student
from splitcodec.model.teacher import Teacher
from splitcodec.model.thinned import Thinned
from splitcodec.training.build import Halves, whole_stem
from splitcodec.training.earlier import begin_from, is_run
from splitcodec.training.lead import Lead
from splitcodec.training.recipe import Recipe
from splitcodec.training.run import Run
from splitcodec.training.students import Pictures, SqueezeRecipe, ThinnedRecipe


def begin(
    recipe: Recipe, student: Student, *, teacher: Teacher, halves: Halves, image_u8: Tensor, lead: Lead | None
) -> float | None:
    """Give a student its first weights; returns what the start loses of some features, or of its lead's latent."""
    stem, feature = halves.stem_and_feature(image_u8)
    if recipe.start is not None:
        begin_from(recipe.start, recipe, student, image_u8=image_u8, taken_bchw=stem, feature_bchw=feature)
        _restep(recipe, student)
        if lead is None:
            return None
        latent = lead.latent(image_u8)
        lead.adopt(student, image_u8=image_u8, feature_bchw=feature, latent_bchw=latent)
        return student.turn(stem, latent)
    encoder, decoder, sizes = student.squeeze, student.decoder, recipe.student
    if isinstance(encoder, PictureEncoder) and isinstance(decoder, PictureDecoder) and isinstance(sizes, Pictures):
        if sizes.step is None:
            return None
        step = sizes.step * fmean(recipe.teacher.colours()[0])
        return begin_as_blocks(encoder, student.bottleneck, decoder, stem, step=step)
    if isinstance(recipe.student, ThinnedRecipe) and recipe.student.hidden is not None and isinstance(encoder, Thinned):
        encoder.refit(whole_stem(teacher), recipe.student.hidden, stem, between=recipe.student.between)
    by_answer = isinstance(recipe.student, SqueezeRecipe) and recipe.student.metric == "answer"
    lost = student.aim_at(stem, feature, tail=halves.tail if by_answer else None)
    if lead is None:
        return lost
    latent = lead.latent(image_u8)
    lead.adopt(student, image_u8=image_u8, feature_bchw=feature, latent_bchw=latent)
    return student.follow(stem, latent)


def _restep(recipe: Recipe, student: Student) -> None:
    """Let an image codec that begins with another's weights have its own quantiser's step."""
    sizes, encoder, decoder = recipe.student, student.squeeze, student.decoder
    if recipe.start is None or not isinstance(encoder, PictureEncoder) or not isinstance(decoder, PictureDecoder):
        return
    theirs = Run(recipe.start).recipe().student if is_run(recipe.start) else None
    if not isinstance(sizes, Pictures) or not isinstance(theirs, Pictures) or not sizes.step:
        return
    if not theirs.step:
        raise RecipeError(
            f"student.step: {recipe.start} says none that could be brought to another; leave it out, or start from a "
            "run whose recipe has one"
        )
    widen_step(encoder, student.bottleneck, decoder, times=sizes.step / theirs.step)
