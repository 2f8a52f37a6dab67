"""What `@flow` and `@task` make of a function: options, parameters, names, hooks."""
