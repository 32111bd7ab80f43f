"""How the weights of `vit_micro` were made: generated images, the losses, the loop, and the probe that measures them.

Kept in the package so that anybody can repeat or improve the training:

    python -m peftx_vision.pretrain --seed 0 --passes 424000 --out vit_micro.safetensors
    python -m peftx_vision.pretrain.probe --json
"""
