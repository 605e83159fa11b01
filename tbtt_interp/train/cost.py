"""What a training costs, before it is begun."""

from tbtt_interp.train.recipe import Recipe

CPU_RATE = 8e10  # floating-point operations a second that two cores reach here, roughly


def estimated_hours(recipe: Recipe) -> float:
    """Of two CPU cores, from 6 operations a parameter and predicted character."""
    model, training = recipe.model, recipe.training
    parameters = model.layers * (4 * model.d_model**2 + 2 * model.d_model * model.d_mlp)
    rows = training.batch if isinstance(training.batch, int) else len(recipe.tasks()[0].lines)
    tokens = rows * training.window * training.steps * recipe.seeds
    return 6 * parameters * tokens / CPU_RATE / 3_600
