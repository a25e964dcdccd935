#![doc = "A software x86-64 logical processor."]
