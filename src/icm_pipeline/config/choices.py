"""What settings with a choice may be, once for the configuration's check and for the code that acts on it."""

KIND_NAMES = {
    "self_attention": "self-attention", "cross_attention": "cross-attention", "feed_forward": "feed-forward",
    "block": "blocks", "gated_self_attention": "gated self-attention", "gated_feed_forward": "gated feed-forward",
    "bottleneck": "bottleneck", "mixed": "mixed",
}  # fmt: skip
COMMANDS = ("show", "ls", "gc", "verify", "models", "check-model", "export", "push", "explore")  # of `icm`, no runs
SITE_KINDS = tuple(kind for kind in KIND_NAMES if kind != "mixed")
RULES = ("top", "worst", "random", "all", "named", "causal")
SOLVERS = ("batched", "scikit_learn")
DIRECTIONS = ("probe", "mean_difference", "pattern")
ASSIGNMENTS = ("quota", "least_change", "image", "batch")
JUDGES = ("age_gender", "clip", "deepface", "fairface", "tiny")
FACES = ("none", "largest", "all", "single")
STORED = ("float16", "float32")
DTYPES = ("float32", "float16", "bfloat16")
SIBLINGS = ("tiny_sdxl", "tiny_sana", "tiny_flux")  # of the embedded model
PARTS = ("all", "portraits", "autoencoder", "classifier", "clip", "diffusion", "quality")  # pretraining's steps
TRAINED = ("autoencoder", "classifier", "clip", "diffusion", "deep_compression", *SIBLINGS)  # each with its own steps
# The settings that an evaluation tells with its figures, as a pattern of their dotted names.
TOLD_BY_STEERING = (
    r"alpha|layers\.(kind|rule|k)|method\.(name|direction|alpha_unit|assignment|vector|norm_preserving|target_shares|"
    r"look|first_step|last_step)"
)
EMBEDDED = "embedded:"  # how the path of a model or judge begins that the package ships
# Arguments of the pipeline's call that are set here for every image, and the settings that decide them.
SET_FOR_EVERY_CALL = {
    "prompt": "attribute.probe_templates and attribute.evaluation_prompts",
    "num_images_per_prompt": "generate.images_per_prompt and evaluate.images_per_prompt",
    "latents": "seed",
    "generator": "seed",
    "num_inference_steps": "model.num_steps",
    "guidance_scale": "model.guidance_scale",
    "distilled_guidance_scale": "model.guidance_scale",
    "max_area": "model.height and model.width",
    "height": "model.height",
    "width": "model.width",
    "output_type": "",
    "return_dict": "",
}
