//! The seams, records, rules and laws of a persistence layer for programs that run LLM agents
