"""What other tools call our settings, for the hint where such a name is tried."""

SYNONYMS = {  # setting -> options and variables of other VQGAN+CLIP and diffusion tools
    "seed": "sd random_seed manual_seed",
    "size": "w h width height resolution",
    "steps": "iterations iters n_iter max_iterations num_iterations ddim_steps epochs",
    "image_prompts": "ip target_images",
    "vqgan": "ckpt conf vqgan_checkpoint vqgan_config",
    "clips": "clip_model clip_models",
    "candidates": "n_samples num_samples n_candidates num_candidates",
    "guidance": "cfg cfg_scale guidance_scale cond_scale",
    "temperature": "temp",
    "init_image": "ii init_img initial_image start_image",
    "init_weight": "iw init_scale",
    "learning_rate": "lr lrate step_rate",
    "optimizer": "opt optimiser",
    "tv": "tv_scale tv_weight",
    "precision": "fp16 half dtype",
    "cutouts": "cutn cuts num_cuts n_cuts num_cutouts",
    "cutout_method": "cutm cut_method",
    "cut_power": "cutp cut_pow",
    "augments": "aug augmentations",
}
_BY_SYNONYM = {name: setting for setting, names in SYNONYMS.items() for name in names.split()}


def synonym(name: str) -> str:
    """Return the setting that other tools call so, as an option or in a file; "" if there is none."""
    return _BY_SYNONYM.get(name.lstrip("-").replace("-", "_").lower(), "")
