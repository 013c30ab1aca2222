"""What is fitted: training configurations, the basis, and the regression."""
