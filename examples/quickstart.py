"""Attach LoRA to an unmodified timm model, take one step in a loop of your own, save, and give the model back."""

import timm
import torch

import peftx

model = timm.create_model("vit_tiny_patch16_224", num_classes=10)  # or transformers, whisper, your own
adapted = peftx.attach(model, "core.lora", rank=8)
print(adapted.explain().render())  # what goes where, and how many parameters that costs
optimizer = torch.optim.AdamW(adapted.param_groups(lr=1e-3))
model(torch.randn(4, 3, 224, 224)).logsumexp(1).mean().backward()  # your data, your loss
optimizer.step()
peftx.artifacts.save(adapted, "my-adapter")  # safetensors and JSON
adapted.detach()
