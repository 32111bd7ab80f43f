"""Vision models: the small ViT of this pack, and every timm model by its name."""
