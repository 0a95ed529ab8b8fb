"""What the shipped Alertmanager configuration does in real Alertmanagers."""
