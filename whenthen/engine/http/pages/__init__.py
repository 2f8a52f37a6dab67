"""Routes of the web pages: each asks the queries of the `Api`, and `whenthen.ui` makes HTML of what they give."""
