"""Who answers: providers are settings plus an authenticated client; the registry names them."""
