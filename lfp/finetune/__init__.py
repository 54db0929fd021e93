"""Fine-tuning with feedback, and how far it moved every layer."""
