namespace llmq {}
