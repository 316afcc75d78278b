"""Flags that people bring along from transformers' scripts, and what to use here in their place."""

from __future__ import annotations

import re
from collections.abc import Container
from fnmatch import fnmatchcase

LOG = "leave it out (the log is log.jsonl in --output_dir)"
ALONE = "leave it out (one process computes, on one device)"
UPLOAD = "leave it out (`hf upload NAME DIR` puts the finished --output_dir on the hub)"
NO_TORCH = "leave it out (there is no PyTorch here)"

ADVICE = (
    # ---- where to compute, and how exactly ----
    ("fp16 fp16_* half_precision_backend", "use --precision fp16"),
    ("bf16 bf16_full_eval", "use --precision bf16"),
    ("tf32", "use --precision tf32"),
    ("mixed_precision", "use --precision"),
    ("use_cpu no_cuda", "use --backend numpy"),
    ("device", "use --backend numpy, or --backend cupy for a GPU"),
    ("local_rank ddp_* fsdp* deepspeed sharded_ddp accelerator_config parallelism_config", ALONE),
    ("average_tokens_across_devices save_on_each_node log_on_each_node", ALONE),
    ("dataloader_num_workers dataloader_p* dataloader_multiprocessing_context", ALONE),
    ("torch_* torchdynamo jit_mode_eval use_ipex use_mps_device use_liger_kernel", NO_TORCH),
    ("liger_kernel_config", NO_TORCH),
    ("auto_find_batch_size", "leave it out (--dry_run prints the memory that a batch takes)"),
    # ---- training ----
    ("train_sampling_strategy", "use --group_by_length"),
    ("data_seed", "use --seed"),
    ("full_determinism", "leave it out (a run with the same --seed is the same)"),
    ("num_warmup_steps", "use --warmup_steps"),
    ("checkpointing_steps", "use --save_strategy and --save_steps"),
    ("eval_accumulation_steps", "use --eval_tokens_per_batch"),
    ("do_train do_eval do_predict", "leave it out (--help says what this script does)"),
    # ---- log and hub ----
    ("report_to run_name project trackio_* logging_dir with_tracking", LOG),
    ("include_tokens_per_second include_num_input_tokens_seen", LOG),
    ("logging_strategy logging_first_step", "use --logging_steps"),
    ("log_level log_level_replica", "use --disable_tqdm for less to read"),
    ("hub_token token use_auth_token", "set HF_TOKEN in the environment"),
    ("cache_dir", "set HF_HOME and MINIBERT_CACHE in the environment"),
    ("push_to_hub* hub_*", UPLOAD),
    ("save_safetensors", "leave it out (weights are written in no other form)"),
    # ---- model and text ----
    ("config_name config_overrides model_type", "use --model_size, or --model_name_or_path"),
    ("config_name", "leave it out (config.json is in the directory --model_name_or_path)"),
    ("tokenizer_name", "leave it out (the vocabulary is in the directory --model_name_or_path)"),
    ("trust_remote_code", "leave it out (a model brings no code)"),
    ("use_fast_tokenizer use_slow_tokenizer", "leave it out (there is one tokenizer)"),
    ("task_name dataset_name dataset_config_name", "use --train_file and --validation_file"),
    ("train_file dataset_name dataset_config_name", "use --corpus"),
    ("validation_file", "use --validation_corpus"),
    ("validation_split_percentage", "use --validation_documents"),
    ("line_by_line", "use --sentences lines"),
    ("overwrite_cache", "use --overwrite_store"),
    ("overwrite_cache", "leave it out (no examples are kept in a cache)"),
    ("preprocessing_num_workers", "leave it out (texts are tokenised on all cores)"),
    ("pad_to_max_length", "leave it out (nothing is padded)"),
    ("max_length", "use --max_seq_length"),
    ("remove_unused_columns", "leave it out (--text_column and --label_column choose columns)"),
    ("model_name_or_path", "use --model"),
    ("test_file", "use --file"),
)
"""(names, advice): the first advice counts whose own flags the script has."""


def advice(name: str, flags: Container[str]) -> str | None:
    """What to use in place of a flag of that name in a script that has these `flags`."""
    name = name.replace("-", "_")
    for names, text in ADVICE:
        known = any(
            fnmatchcase(each, pattern)
            for pattern in names.split()
            for each in (name, name.removeprefix("no_"))
        )
        if known and all(flag in flags for flag in re.findall(r"--\w+", text)):
            return text
    return None
