"""The paper's experiments: its four networks on its four data sets; it never sees a slide."""
