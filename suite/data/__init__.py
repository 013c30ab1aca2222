"""Training data for other people's trainers: labelled configurations, relaxed cells, and elastic targets as files."""
