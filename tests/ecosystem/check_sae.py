"""SAELens trains a small sparse autoencoder on a shipped model's activations for a few steps.

python tests/ecosystem/check_sae.py
"""

from collections.abc import Iterator

import torch
from sae_lens import StandardTrainingSAE, StandardTrainingSAEConfig
from sae_lens.config import SAETrainerConfig
from sae_lens.training.sae_trainer import SAETrainer

import tbtt_interp as tbtt

run, site = tbtt.load_run("arithmetic-medium-file"), "blocks.0.mlp.hook_post"
activations = tbtt.run_activations(run, sites=[site])[site][0]
samples = activations.flatten(0, 1)
samples = samples / samples.norm(dim=-1).mean()
generator = torch.Generator().manual_seed(0)


def batches() -> Iterator[torch.Tensor]:
    while True:
        yield samples[torch.randint(len(samples), (256,), generator=generator)]


torch.manual_seed(0)
config = StandardTrainingSAEConfig(
    d_in=samples.shape[1], d_sae=4 * samples.shape[1], l1_coefficient=1e-3
)
sae = StandardTrainingSAE(config)
before = (sae(samples) - samples).square().mean().item()
trainer = SAETrainer(
    SAETrainerConfig(total_training_samples=256 * 100, train_batch_size_samples=256, lr=3e-3,
                     lr_end=3e-3),
    sae=sae, data_provider=batches(),
)  # fmt: skip
sae = trainer.fit()
after = (sae(samples) - samples).square().mean().item()
assert after < before / 2, (before, after)
print(f"SAELens: mean squared error {before:.4f} before and {after:.4f} after 100 steps")
