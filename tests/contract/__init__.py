"""What users, rules and dashboards may rely on: names, values, whole pages."""
