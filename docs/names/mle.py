"""What `import mlekit as mle` gives; hooks/public_names.py fills it in, so that pages can say `::: mle.fit`."""
