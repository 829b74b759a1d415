"""The fixed forecasting protocol on real recordings: skill, not profit, in comparable figures."""
