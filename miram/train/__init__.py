"""Training: the crop store, augmentation, schedules, checkpoints, pre-training and fine-tuning."""
