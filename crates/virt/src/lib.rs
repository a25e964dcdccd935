#![doc = "SGX."]
