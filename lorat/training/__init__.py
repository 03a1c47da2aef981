"""What `lorat.train` is made of: the plan, the rows, the two trainings, the report."""
