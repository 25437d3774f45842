package dev.edgesam.harness;

import android.app.Activity;
import android.app.Instrumentation;
import android.content.Context;
import android.content.Intent;
import android.os.Bundle;
import dev.edgesam.harness.core.Events;
import java.io.File;
import java.io.IOException;

/**
 * What the desktop starts: {@code am instrument -w -r -e job FILE dev.edgesam.harness/.JobInstrumentation}. {@code
 * FILE} is a path in the harness's folder; without it, only {@code hello} is told, and where that folder is.
 */
public final class JobInstrumentation extends Instrumentation implements Events.Sink {
  private String job;

  @Override
  public void onCreate(Bundle arguments) {
    super.onCreate(arguments);
    job = arguments.getString("job");
    start();
  }

  @Override
  public void onStart() {
    super.onStart();
    Bundle results = new Bundle();
    try {
      results.putString("status", job == null ? hello() : run());
    } catch (IOException e) {
      results.putString("shortMsg", e.toString());
    }
    finish(Activity.RESULT_OK, results);
  }

  private String hello() throws IOException {
    status("folder", HarnessApp.folder(getTargetContext()).getPath());
    HarnessApp.harness(getTargetContext()).hello(this);
    return "complete";
  }

  private String run() throws IOException {
    Context context = getTargetContext();
    // Android gives what is in the background fewer and slower processors. Nobody waits for the activity: behind a
    // locked screen it does not appear.
    context.startActivity(new Intent(context, MainActivity.class).addFlags(Intent.FLAG_ACTIVITY_NEW_TASK));
    File folder = HarnessApp.folder(context);
    return HarnessApp.harness(context).run(folder, job, this);
  }

  @Override
  public void line(String json) {
    status("event", json);
    MainActivity.show(json);
  }

  private void status(String key, String value) {
    Bundle bundle = new Bundle();
    bundle.putString(key, value);
    sendStatus(0, bundle);
  }
}
