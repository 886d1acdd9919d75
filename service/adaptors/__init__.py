"""Fieldscope inside other libraries: LangChain, LlamaIndex, MTEB, and assistants that speak MCP."""
