package dev.edgesam.harness.core;

import java.util.ArrayList;
import java.util.List;
import java.util.Map;
import java.util.regex.Pattern;

/** The fields of one JSON object, each fetched by kind and range; a fault names the field. Unknown fields pass. */
final class Fields {
  static final Pattern PATH = Pattern.compile("[A-Za-z0-9_][A-Za-z0-9._+-]*(/[A-Za-z0-9_][A-Za-z0-9._+-]*)*");
  private static final int LONGEST_PATH = 200;

  private final Map<?, ?> values;
  private final String where;

  Fields(Map<?, ?> values, String where) {
    this.values = values;
    this.where = where;
  }

  boolean has(String name) {
    return values.get(name) != null;
  }

  String text(String name) throws Fault {
    Object value = values.get(name);
    if (!(value instanceof String)) {
      throw wrong(name, "text");
    }
    return (String) value;
  }

  String text(String name, String otherwise) throws Fault {
    return has(name) ? text(name) : otherwise;
  }

  String matching(String name, Pattern pattern) throws Fault {
    String value = text(name);
    if (!pattern.matcher(value).matches()) {
      throw wrong(name, pattern.pattern());
    }
    return value;
  }

  /** A path within the harness's folder; what is not well-formed is {@code bad-path}. */
  String path(String name) throws Fault {
    String value = text(name);
    if (value.length() > LONGEST_PATH || !PATH.matcher(value).matches()) {
      throw new Fault("bad-path", where + "." + name + ": not a relative path of plain names, 200 characters at most");
    }
    return value;
  }

  long whole(String name, long least, long most) throws Fault {
    Object value = values.get(name);
    if (!(value instanceof Long) || (Long) value < least || (Long) value > most) {
      throw wrong(name, "a whole number from " + least + " to " + most);
    }
    return (Long) value;
  }

  double number(String name, double least, double most) throws Fault {
    return number(values.get(name), name, least, most);
  }

  boolean flag(String name) throws Fault {
    Object value = values.get(name);
    if (!(value instanceof Boolean)) {
      throw wrong(name, "true or false");
    }
    return (Boolean) value;
  }

  Fields object(String name) throws Fault {
    return inner(values.get(name), name);
  }

  List<Fields> objects(String name, int least, int most) throws Fault {
    List<Fields> objects = new ArrayList<Fields>();
    for (Object element : list(name, least, most)) {
      objects.add(inner(element, name + "." + objects.size()));
    }
    return objects;
  }

  double[] numbers(String name, int least, int most, double smallest, double largest) throws Fault {
    return numbers(list(name, least, most), name, smallest, largest);
  }

  /** Pairs such as points, flattened. */
  double[] pairs(String name, int least, int most, double smallest, double largest) throws Fault {
    List<Object> flat = new ArrayList<Object>();
    for (Object element : list(name, least, most)) {
      if (!(element instanceof List) || ((List<?>) element).size() != 2) {
        throw wrong(name, "a list of pairs");
      }
      flat.addAll((List<?>) element);
    }
    return numbers(flat, name, smallest, largest);
  }

  Fault wrong(String name, String wanted) {
    return new Fault("bad-line", where + "." + name + ": " + wanted + " was to come");
  }

  private Fields inner(Object value, String name) throws Fault {
    if (!(value instanceof Map)) {
      throw wrong(name, "an object");
    }
    return new Fields((Map<?, ?>) value, where + "." + name);
  }

  private List<?> list(String name, int least, int most) throws Fault {
    Object value = values.get(name);
    if (!(value instanceof List) || ((List<?>) value).size() < least || ((List<?>) value).size() > most) {
      throw wrong(name, "a list of " + least + " to " + most);
    }
    return (List<?>) value;
  }

  private double[] numbers(List<?> list, String name, double smallest, double largest) throws Fault {
    double[] numbers = new double[list.size()];
    for (int i = 0; i < numbers.length; i++) {
      numbers[i] = number(list.get(i), name + "." + i, smallest, largest);
    }
    return numbers;
  }

  private double number(Object value, String name, double least, double most) throws Fault {
    if (!(value instanceof Number) || ((Number) value).doubleValue() < least || ((Number) value).doubleValue() > most) {
      throw wrong(name, "a number from " + least + " to " + most);
    }
    return ((Number) value).doubleValue();
  }
}
