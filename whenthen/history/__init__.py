"""What happened in the last weeks? The projection of the streams into SQL that will be here answers from one database."""
