"""What a training costs, before it is begun."""

from tbtt_interp.train.recipe import Recipe

# Fitted to the seconds of processor time that a step of one model takes here, small to mlt, on
# every framing; half of that on two cores. They are within a factor of 1.5 of all of these.
RATE = 1.5e11  # floating-point operations a second that two cores reach in matrix products
ACTIVATION = 4.8e-9  # seconds for a channel of a layer at a token: LayerNorm, softmax, GELU, memory
STEP = 3e-4  # seconds for a model, whatever its size: windows, optimizer, clipping


def estimated_hours(recipe: Recipe) -> float:
    """Of two CPU cores, from 6 operations a parameter and predicted character, and what is beside.

    >>> from tbtt_interp.train.resolve import resolve_recipe
    >>> round(estimated_hours(resolve_recipe("paper", {"model.size": "large", "seeds": 16})), 1)
    1.1
    """
    model, training = recipe.model, recipe.training
    parameters = model.layers * (4 * model.d_model**2 + 2 * model.d_model * model.d_mlp)
    rows = training.batch if isinstance(training.batch, int) else len(recipe.tasks()[0].lines)
    token = 6 * parameters / RATE + ACTIVATION * model.d_model * model.layers
    step = STEP + token * rows * training.window
    return step * training.steps * recipe.seeds / 3_600
