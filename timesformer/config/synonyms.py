"""What other programs of the field call the settings: PySlowFast, mmaction2, timm, Hugging Face."""

from __future__ import annotations

# Key here, or key and value: names elsewhere, without their section unless it decides.
_TABLE = """
SOLVER.MAX_EPOCH: epochs max_epochs num_epochs n_epochs total_epochs num_train_epochs train_epochs training_epochs
    epoch
SOLVER.BASE_LR: lr learning_rate init_lr initial_lr max_lr blr lr0
SOLVER.COSINE_END_LR: min_lr eta_min lr_min end_lr final_lr minimum_lr
SOLVER.WARMUP_EPOCHS: warmup warmup_epoch warm_up_epochs lr_warmup_epochs num_warmup_epochs warmup_ratio warmup_steps
SOLVER.WARMUP_START_LR: warmup_lr warmup_init_lr warmup_lr_init warmup_bias_lr
SOLVER.LR_POLICY: sched scheduler lr_scheduler lr_schedule lr_scheduler_type lr_config param_scheduler
SOLVER.OPTIMIZING_METHOD: opt optim optimizer optimiser optimizer_type optim_type solver.type solver.name
    optimizer.type optimizer.name
SOLVER.WEIGHT_DECAY: wd decay
SOLVER.LAYER_DECAY: layerwise_decay layerwise_lr_decay llrd layer_decay_rate lr_layer_decay
SOLVER.CLIP_GRAD_NORM: clip_grad clip_grad_l2norm clip_grad_val grad_clip clip_gradients max_grad_norm max_norm
    gradient_clip_val gradient_clipping grad_clip_norm
SOLVER.LABEL_SMOOTHING: smoothing label_smooth label_smooth_eps label_smoothing_factor label_smooth_value
    label_smoothing_value
SOLVER.BETAS: opt_betas beta1 beta2 adam_beta1 adam_beta2
GLOBAL_BATCH_SIZE: batch total_batch_size effective_batch_size
TRAIN.BATCH_SIZE: batch_size train_batch_size videos_per_gpu samples_per_gpu batch_size_per_gpu
    per_device_train_batch_size ims_per_batch
TEST.BATCH_SIZE: test_batch_size val_batch_size eval_batch_size per_device_eval_batch_size validation_batch_size
    val.batch_size
GLOBAL_BATCH_SIZE, which TRAIN.BATCH_SIZE divides: gradient_accumulation_steps accum_iter accumulate_grad_batches
    grad_accum_steps accumulation_steps update_freq num_iters num_accumulation
MODEL.WEIGHTS: pretrained pretrain pretrained_path pretrained_weights pretrained_checkpoint
    pretrained_cfg weights init_weights init_checkpoint load_from model_name_or_path finetune_from
TRAIN.CHECKPOINT_FILE_PATH with TRAIN.FINETUNE True: finetune initial_checkpoint
TRAIN.AUTO_RESUME: resume resume_from resume_from_checkpoint resume_training autoresume
TRAIN.TRAINABLE_BLOCKS 0: lin_probe linear_probe linear_probing linear_eval head_only freeze_backbone frozen_backbone
    train_head_only
TRAIN.TRAINABLE_BLOCKS: frozen_stages freeze_layers num_frozen_layers unfreeze_layers trainable_layers freeze_blocks
TRAIN.FREEZE: frozen freeze_params frozen_params
TRAIN.EVAL_PERIOD: val_interval eval_interval val_period eval_freq eval_every val_freq check_val_every_n_epoch
    eval_steps
TRAIN.CHECKPOINT_PERIOD: save_interval save_period save_freq save_every checkpoint_interval save_epochs
TRAIN.CHECKPOINT_PERIOD_STEPS: save_steps checkpoint_steps
TRAIN.CHECKPOINT_KEEP: max_keep_ckpts save_total_limit checkpoint_hist save_top_k
LOG_PERIOD: log_interval log_freq print_freq logging_steps log_every log_every_n_steps print_interval
OUTPUT_DIR: work_dir out_dir output log_dir save_dir exp_dir results_dir output_path save_path
RNG_SEED: seed random_seed manual_seed
NUM_GPUS: gpus n_gpus ngpu num_gpu gpu devices nproc_per_node gpu_ids device
NUM_SHARDS: num_nodes nnodes num_machines nodes
PRECISION: amp mixed_precision use_amp fp16 bf16 dtype half train.mixed_precision amp_dtype use_fp16
MODEL.COMPILE: torchcompile compile_model
MODEL.RECOMPUTE: gradient_checkpointing grad_checkpointing act_checkpoint activation_checkpoint
    activation_checkpointing use_checkpoint with_cp checkpointing grad_checkpoint
DIST.STRATEGY: fsdp ddp deepspeed sharding strategy
MODEL.MODEL_NAME: model backbone model_type model.name model.type backbone.type network architecture
MODEL.NUM_CLASSES: nb_classes n_classes num_labels classes num_class
MODEL.LOSS_FUNC: loss criterion loss_type loss_cls loss_name loss_fn
MODEL.DROP_PATH_RATE: drop_path droppath_rate stochastic_depth stoch_depth drop_connect stochastic_depth_rate
MODEL.DROP_RATE: drop dropout dropout_ratio hidden_dropout_prob dropout_prob head_dropout
MODEL.ATTN_DROP_RATE: attn_drop attention_probs_dropout_prob attn_dropout attention_dropout att_drop_rate
TIMESFORMER.EMBED_DIM: embed_dims hidden_size hidden_dim dim d_model width embedding_dim
TIMESFORMER.DEPTH: num_hidden_layers num_layers n_layers layers num_transformer_layers num_blocks depths
TIMESFORMER.NUM_HEADS: num_attention_heads n_heads heads
TIMESFORMER.ATTENTION_TYPE: attention attn_type attention_scheme
TIMESFORMER.PATCH_SIZE: patch patch_kernel tubelet_size
DATA.PATH_TO_DATA_DIR: data_dir data_root data_path dataset_dir root ann_file root_dir dataset_path data_folder
    path_to_data
DATA.PATH_PREFIX: data_prefix video_dir video_root video_prefix
DATA.CLASS_NAMES_PATH: label_map class_names label_names classes_file label_map_path class_file
DATA.PATH_LABEL_SEPARATOR: delimiter separator sep csv_separator
DATA.NUM_FRAMES: clip_len num_segments frames clip_length n_frames frames_per_clip seq_len num_frame t
DATA.SAMPLING_RATE: frame_interval frame_stride stride frame_sample_rate frame_rate temporal_stride sample_rate
    frame_step
DATA.TARGET_FPS: fps
DATA.TRAIN_CROP_SIZE and DATA.TEST_CROP_SIZE: img_size image_size input_size crop_size resolution spatial_size
    frame_size
DATA.TRAIN_JITTER_SCALES: scale short_side_range jitter_scales min_scale short_side_size train_scales resize
DATA.RANDOM_FLIP: flip hflip horizontal_flip flip_ratio flip_prob random_horizontal_flip
DATA.AUTO_AUGMENT: aa rand_augment randaug aug_type autoaugment aa_type auto_aug
DATA.COLOR_JITTER: jitter colour_jitter train_pca_jitter colorjitter
DATA.RE_PROB: reprob random_erasing random_erase erase_prob random_erasing_prob
DATA.MEAN: img_mean image_mean pixel_mean
DATA.STD: img_std image_std pixel_std
DATA.DECODING_BACKEND: decoder backend video_backend video_reader
TRAIN.DATASET and TEST.DATASET: dataset dataset_type dataset_name
TEST.NUM_ENSEMBLE_VIEWS: num_clips test_num_segment num_views test_views test_num_clips num_temporal_clips
TEST.NUM_SPATIAL_CROPS: test_num_crop num_crops test_crops three_crop
TEST.CHECKPOINT_FILE_PATH: ckpt checkpoint checkpoint_path ckpt_path eval_checkpoint test.checkpoint_path test.weights
TRAIN.ENABLE False: eval eval_only test_only evaluate validate_only
DATA_LOADER.NUM_WORKERS: workers num_worker n_workers workers_per_gpu dataloader_num_workers num_data_workers
DATA_LOADER.PIN_MEMORY: pin_mem dataloader_pin_memory
MIXUP.ALPHA: mixup mixup_alpha
MIXUP.CUTMIX_ALPHA: cutmix cutmix_alpha
MIXUP.PROB: mixup_prob
MIXUP.SWITCH_PROB: mixup_switch_prob label_mix_switch_prob
MIXUP.ENABLED: mixup.enable mixup_enable use_mixup
EMA.ENABLED: model_ema use_ema ema.enable
EMA.DECAY: ema_decay model_ema_decay model_ema.decay ema_momentum
EMA.WARMUP: model_ema_warmup
TENSORBOARD.ENABLE: use_tensorboard log_tensorboard report_to
TRAIN.ENABLE True: do_train
TEST.ENABLE: do_eval do_test
"""


def _letters(name: str) -> str:
    return name.lower().replace("_", "").replace("-", "")


_MEANT = {
    _letters(name): key
    for line in _TABLE.replace("\n    ", " ").strip().splitlines()
    for key, names in [line.split(": ")]
    for name in names.split()
}


def meant_key(name: str) -> str:
    """The key (or "KEY VALUE") for another program's name, such as `optimizer.lr` or `--num-epochs`; "" if unknown."""
    *sections, leaf = _letters(name).split(".")
    return _MEANT.get(".".join([*sections[-1:], leaf])) or _MEANT.get(leaf, "")
