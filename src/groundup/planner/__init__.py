"""What a model will take, before anything is spent: the very parts that will run, asked without running them."""
