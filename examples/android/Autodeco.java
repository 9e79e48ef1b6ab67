package org.autodeco;

import java.nio.charset.StandardCharsets;

/** A model that picks temperature and top-p for every token. Answers are made one at a time, on the caller's thread. */
public final class Autodeco implements AutoCloseable {
    /** Called for each token. Its bytes are UTF-8, where a character may lie over two tokens; false ends the answer. */
    public interface Listener {
        boolean onToken(byte[] text, float temperature, float topP);
    }

    static {
        System.loadLibrary("autodeco_jni");
    }

    private long session;

    /** Loads a model and its heads (the same merged file twice, if it is one). @throws RuntimeException saying why not */
    public Autodeco(String model, String heads, int contextTokens, int threads) {
        session = open(model, heads, contextTokens, threads);
    }

    /** Answers a question, in the model's chat template. */
    public synchronized void answer(String question, int maxTokens, Listener listener) {
        if (session == 0) {
            throw new IllegalStateException("closed");
        }
        answer(session, question.getBytes(StandardCharsets.UTF_8), maxTokens, listener);
    }

    @Override
    public synchronized void close() {
        close(session);
        session = 0;
    }

    private static native long open(String model, String heads, int contextTokens, int threads);

    private static native void answer(long session, byte[] question, int maxTokens, Listener listener);

    private static native void close(long session);
}
