"""What do requests and answers of the API look like? Typed models, which OpenAPI is made from."""
