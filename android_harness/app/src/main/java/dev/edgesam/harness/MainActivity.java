package dev.edgesam.harness;

import android.app.Activity;
import android.os.Bundle;
import android.view.WindowManager;
import android.widget.ScrollView;
import android.widget.TextView;
import dev.edgesam.harness.core.Fault;
import dev.edgesam.harness.core.Json;
import java.io.IOException;
import java.nio.charset.StandardCharsets;
import java.util.Locale;
import java.util.Map;

/**
 * Shows the run of {@link JobInstrumentation} to a person and keeps the screen on meanwhile. It runs nothing itself:
 * opened by hand, it says where the harness's folder is.
 */
public final class MainActivity extends Activity {
  private static volatile MainActivity shown;

  private TextView text;

  @Override
  protected void onCreate(Bundle saved) {
    super.onCreate(saved);
    getWindow().addFlags(WindowManager.LayoutParams.FLAG_KEEP_SCREEN_ON);
    text = new TextView(this);
    ScrollView scroll = new ScrollView(this);
    scroll.setFitsSystemWindows(true);
    scroll.addView(text);
    setContentView(scroll);
    try {
      text.setText("Folder: " + HarnessApp.folder(this) + "\n");
    } catch (IOException e) {
      text.setText(e.getMessage() + "\n");
    }
  }

  @Override
  protected void onResume() {
    super.onResume();
    shown = this;
  }

  @Override
  protected void onPause() {
    shown = null;
    super.onPause();
  }

  /** Takes an event from any thread and returns at once. Single frames are not drawn: drawing costs time. */
  static void show(String json) {
    final MainActivity activity = shown;
    final String line = activity == null ? null : line(json);
    if (line != null) {
      activity.runOnUiThread(
          new Runnable() {
            @Override
            public void run() {
              activity.text.append(line + "\n");
            }
          });
    }
  }

  private static String line(String json) {
    if (json.contains("\"type\":\"sample\"") && !json.contains("\"stage\":\"first-")) {
      return null;
    }
    try {
      Map<String, Object> event = Json.object(json.getBytes(StandardCharsets.UTF_8));
      Object type = event.get("type");
      if (type.equals("sample")) {
        return String.format(Locale.ROOT, "%s: %.1f ms", event.get("stage"), (Long) event.get("ns") / 1e6);
      }
      String[] told = {"name", "passed", "thermal", "requested", "applied", "code", "message", "status"};
      StringBuilder line = new StringBuilder(String.valueOf(type));
      for (String field : told) {
        if (event.get(field) != null) {
          line.append(' ').append(field).append(' ').append(event.get(field));
        }
      }
      return line.toString();
    } catch (Fault fault) {
      return fault.getMessage();
    }
  }
}
